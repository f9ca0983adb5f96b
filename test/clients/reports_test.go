package clients_test

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// Go clients send a Referer when they follow a redirect. That of sidemirror's own redirect to
// library/ was taken for a web page: 403.
func TestShortNamesOfDockerHubArePulledByPrefix(t *testing.T) {
	s := newStage(t, engines{}, quirky.Options{}, nil)
	image := quirky.NewImage(false, "busybox", 1000)
	s.up.Add("library/busybox", "latest", image)
	reference := s.side.Address() + "/docker.io/busybox:latest"
	for _, command := range [][]string{
		{"crane", "manifest", "--insecure", reference},
		{"regctl", "manifest", "get", "--format", "raw-body", reference},
		{"oras", "manifest", "fetch", "--plain-http", reference},
		{"skopeo", "inspect", "--raw", "--tls-verify=false", "docker://" + reference},
	} {
		got, err := s.run(command[0], command[1:]...)
		if err != nil || strings.TrimSpace(got) != string(image.Bytes) {
			t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, got)
		}
	}
	if _, err := s.podmanPull(reference); err != nil {
		t.Error(err)
	}
}

// A 404 of the referrers API became NAME_UNKNOWN, and oras did not fall back to the tag schema.
func TestReferrersOfARegistryWithoutTheirAPIAreFoundByTheirTag(t *testing.T) {
	s := newStage(t, engines{}, quirky.Options{}, nil)
	image := quirky.NewImage(false, "subject", 1000)
	signature := quirky.NewReferrer(image, "application/vnd.example.signature", "signature")
	list := quirky.NewIndex(false, signature)
	s.up.Add("alice/app", "v1", image)
	s.up.Add("alice/app", strings.Replace(image.Digest.String(), ":", "-", 1), list)
	for what, refuse := range map[string]func(w http.ResponseWriter){
		// distribution 3, and what stands in front of it
		"a page": func(w http.ResponseWriter) { http.Error(w, "404 page not found", http.StatusNotFound) },
		"an error of the specification": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[{"code":"UNSUPPORTED","message":"the operation is unsupported"}]}`)
		},
	} {
		t.Run(what, func(t *testing.T) {
			s.up.Set(func(o *quirky.Options) {
				o.Intercept = func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
					if strings.Contains(r.URL.Path, "/referrers/") {
						refuse(w)
						return true
					}
					return false
				}
			})
			out, err := s.run("oras", "discover", "--plain-http", s.byPrefix("alice/app:v1"))
			if err != nil || !strings.Contains(out, signature.Digest.String()) {
				t.Errorf("oras discover: %v\n%s", err, out)
			}
			out, err = s.run("regctl", "artifact", "list", s.byPrefix("alice/app:v1"))
			if err != nil || !strings.Contains(out, signature.Digest.String()) {
				t.Errorf("regctl artifact list: %v\n%s", err, out)
			}
		})
	}
}

// The manifests of artifacts have neither config nor layers: 502.
func TestArtifactManifestsAreFetched(t *testing.T) {
	s := newStage(t, engines{}, quirky.Options{}, nil)
	for mediaType, body := range map[string]string{
		"application/vnd.oci.artifact.manifest.v1+json": `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"a/b","blobs":[]}`,
		"application/vnd.cncf.oras.artifact.manifest.v1+json": `{"mediaType":"application/vnd.cncf.oras.artifact.manifest.v1+json","artifactType":"a/b",` +
			`"blobs":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("0", 64) + `","size":2}}`,
		"application/vnd.example.of.tomorrow+json": `{"kind":"nothing that is known"}`,
	} {
		artifact := quirky.Raw(mediaType, []byte(body))
		s.up.Add("alice/artifact", "v1", artifact)
		for _, reference := range []string{":v1", "@" + artifact.Digest.String()} {
			for _, command := range [][]string{
				{"crane", "manifest", "--insecure", s.byPrefix("alice/artifact" + reference)},
				{"oras", "manifest", "fetch", "--plain-http", s.byPrefix("alice/artifact" + reference)},
			} {
				got, err := s.run(command[0], command[1:]...)
				if err != nil || strings.TrimSpace(got) != body {
					t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, got)
				}
			}
		}
	}
}

// A manifest whose Content-Type had a parameter was never stored by tag.
func TestATagWhoseMediaTypeHasAParameterIsServedWhileTheRegistryIsAway(t *testing.T) {
	s := newStage(t, engines{}, quirky.Options{}, nil)
	image := quirky.NewImage(false, "charset", 1000)
	s.up.Add("alice/app", "v1", image)
	s.up.Set(func(o *quirky.Options) { o.Manifest.Type = image.MediaType + "; charset=utf-8" })
	command := []string{"manifest", "--insecure", s.byPrefix("alice/app:v1")}
	for _, away := range []bool{false, true} {
		if away {
			s.up.Set(func(o *quirky.Options) { o.Limit.Status = 503 })
		}
		if got, err := s.run("crane", command...); err != nil || got != string(image.Bytes) {
			t.Errorf("away %v: %v\n%s", away, err, got)
		}
	}
}

// The registry's warnings were dropped.
func TestTheRegistrysWarningReachesThePerson(t *testing.T) {
	const warning = `299 - "alice/app is deprecated, use bob/app"`
	s := newStage(t, engines{}, quirky.Options{Intercept: func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Add("Warning", warning)
			w.Header().Add("Warning", `199 - "not for people"`)
		}
		return false
	}}, nil)
	s.up.Add("alice/app", "v1", quirky.NewImage(false, "warning", 1000))
	for _, which := range []string{"first", "second, from the cache"} {
		out := s.output("regctl", "manifest", "head", s.byPrefix("alice/app:v1"))
		if !strings.Contains(out, "alice/app is deprecated") || strings.Contains(out, "not for people") {
			t.Errorf("%s: regctl printed\n%s", which, out)
		}
	}
}

// containerd's resolver has it since 2.4; no program of containerd 2.4.2 sets a handler.
func TestThatAManifestMayBeOldReachesThePerson(t *testing.T) {
	s := newStage(t, engines{}, quirky.Options{}, nil)
	s.up.Add("alice/app", "v1", quirky.NewImage(false, "old", 1000))
	reference := s.byPrefix("alice/app:v1")
	shown := map[string]func() string{
		"regctl":     func() string { return s.output("regctl", "manifest", "head", reference) },
		"oras":       func() string { return s.output("oras", "manifest", "fetch", "--plain-http", reference) },
		"containerd": func() string { return resolverWarnings(t, reference) },
	}
	s.output("crane", "manifest", "--insecure", reference) // which is stored
	for _, away := range []bool{false, true} {
		if away {
			s.up.Set(func(o *quirky.Options) { o.Limit.Status = 503 })
		}
		for client, show := range shown {
			out := show()
			if strings.Contains(out, "sidemirror: this may not be the latest "+name+"/alice/app:v1") != away {
				t.Errorf("the registry is away %v: %s shows\n%s", away, client, out)
			}
		}
	}
}

// resolverWarnings returns what containerd's resolver hands to its handler of warnings.
func resolverWarnings(t *testing.T, reference string) string {
	t.Helper()
	var handler warnings
	resolver := docker.NewResolver(docker.ResolverOptions{
		Hosts:          docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts)),
		WarningHandler: &handler,
	})
	if _, _, err := resolver.Resolve(t.Context(), reference); err != nil {
		t.Errorf("containerd's resolver: %v", err)
	}
	return strings.Join(handler, "\n")
}

type warnings []string

func (w *warnings) Warn(_ context.Context, _ docker.WarningSource, warning string) {
	*w = append(*w, warning)
}

// output returns all that a program prints.
func (s *stage) output(program string, args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), process.Path(s.t, program), args...)
	cmd.Env = s.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Errorf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return string(out)
}

// What a registry or a proxy says about why it refuses was dropped.
func TestTheReasonOfARefusalReachesThePerson(t *testing.T) {
	e := startEngines(t)
	s := newStage(t, e, quirky.Options{}, nil)
	s.up.Add("alice/app", "v1", quirky.NewImage(false, "refused", 1000))
	for what, refusal := range map[string]struct {
		status     int
		kind, body string
	}{
		"403 of the specification": {403, "application/json", `{"errors":[{"code":"DENIED","message":"the REASON"}]}`},
		"403 of a proxy in text":   {403, "text/plain", "the REASON"},
		"403 of a proxy in HTML":   {403, "text/html", "<html><title>the REASON</title></html>"},
		"409 of another kind":      {409, "application/json", `{"message":"the REASON"}`},
		"451":                      {451, "application/problem+json", `{"detail":"the REASON"}`},
	} {
		t.Run(what, func(t *testing.T) {
			s := *s
			s.t = t
			s.up.Set(func(o *quirky.Options) {
				o.Intercept = func(_ quirky.Part, w http.ResponseWriter, r *http.Request) bool {
					if !strings.Contains(r.URL.Path, "/manifests/") {
						return false
					}
					w.Header().Set("Content-Type", refusal.kind)
					w.WriteHeader(refusal.status)
					fmt.Fprint(w, refusal.body)
					return true
				}
			})
			reference := s.byPrefix("alice/app:v1")
			for name, err := range map[string]error{
				"crane manifest": failure(s.run("crane", "manifest", "--insecure", reference)),
				"podman pull":    failure(s.podmanPull(reference)),
				"docker pull":    s.docker.Pull(context.Background(), reference, ""),
			} {
				if err == nil || !strings.Contains(err.Error(), "the REASON") {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func failure(_ string, err error) error { return err }

// An upstream that was down at the start was left alone for a second and more.
func TestTheFirstPullAfterTheUpstreamComesUpSucceeds(t *testing.T) {
	address := harness.FreeAddress(t)
	s := &stage{t: t, side: harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: name, Upstreams: []string{"http://" + address}}},
	})}
	reference := s.byPrefix("alice/app:v1")
	mirror := "/v2/alice/app/manifests/v1?ns=" + name // the engine's form, which does not wait for a back-off
	for range 5 {
		if a := s.side.Get(mirror, nil); a.Status != 502 {
			t.Fatalf("status %d while nothing listens", a.Status)
		}
	}
	s.up = quirky.New(t, quirky.Options{Address: address})
	s.up.Add("alice/app", "v1", quirky.NewImage(false, "late", 1000))
	if a := s.side.Get(mirror, nil); a.Status != 200 {
		t.Errorf("status %d of the first pull after the upstream is up", a.Status)
	}
	if _, err := s.run("crane", "manifest", "--insecure", reference); err != nil {
		t.Error(err)
	}
}
