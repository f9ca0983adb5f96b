package oci

import "testing"

func TestMediaTypesAreComparedWithoutTheirParameters(t *testing.T) {
	const index, image = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"
	for _, tt := range []struct {
		contentType              string
		want                     string
		manifest, index, schema1 bool
	}{
		{image, image, true, false, false},
		{image + "; charset=utf-8", image, true, false, false},
		{"Application/VND.oci.image.manifest.V1+json ;charset=utf-8", image, true, false, false},
		{image + "; charset", image, true, false, false},
		{image + ";", image, true, false, false},
		{index + ";profile=x", index, true, true, false},
		{DockerIndex, DockerIndex, true, true, false},
		{DockerManifest + "; charset=utf-8", DockerManifest, true, false, false},
		{"application/vnd.oci.artifact.manifest.v1+json", "application/vnd.oci.artifact.manifest.v1+json", true, false, false},
		{"application/vnd.cncf.oras.artifact.manifest.v1+json", "application/vnd.cncf.oras.artifact.manifest.v1+json", true, false, false},
		{"application/vnd.docker.distribution.manifest.v1+prettyjws; charset=utf-8", "application/vnd.docker.distribution.manifest.v1+prettyjws", false, false, true},
		{"application/json", "application/json", false, false, false},
		{"text/html; charset=utf-8", "text/html", false, false, false},
		{"", "", false, false, false},
		{"nonsense/", "", false, false, false},
	} {
		if got := MediaType(tt.contentType); got != tt.want {
			t.Errorf("%q is %q, want %q", tt.contentType, got, tt.want)
		}
		if m, i, s := IsManifest(tt.contentType), IsIndex(tt.contentType), IsSchema1(tt.contentType); m != tt.manifest || i != tt.index || s != tt.schema1 {
			t.Errorf("%q: a manifest %v, an index %v, schema 1 %v", tt.contentType, m, i, s)
		}
	}
	for _, m := range ManifestTypes() {
		if !IsManifest(m) {
			t.Errorf("%s is accepted and is no manifest", m)
		}
	}
}
