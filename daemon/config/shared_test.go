package config

import (
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestTheURLOfASharedStoreSaysWhereTheBucketIs(t *testing.T) {
	for text, want := range map[string]string{
		"s3://layers":                       "https://s3.us-east-1.amazonaws.com layers  us-east-1",
		"s3://layers/a/b/?region=eu-west-3": "https://s3.eu-west-3.amazonaws.com layers a/b eu-west-3",
		"s3://layers/?endpoint=https://s3.corp.example:3900&region=garage":       "https://s3.corp.example:3900 layers  garage",
		"s3://layers?endpoint=http%3A%2F%2F10.0.0.7%3A9000%2F":                   "http://10.0.0.7:9000 layers  us-east-1",
		"s3://my.layers/x.y_z-1?endpoint=https://abc.r2.example&region=auto":     "https://abc.r2.example my.layers x.y_z-1 auto",
		"s3://layers/sidemirror?endpoint=http://[::1]:9000&region=us-gov-west-1": "http://[::1]:9000 layers sidemirror us-gov-west-1",
	} {
		c := mustLoad(t, "[cache.shared]\nurl = '"+text+"'\n")
		b, ok := c.Cache.Shared.Bucket()
		if got := strings.Join([]string{b.Endpoint.String(), b.Name, b.Prefix, b.Region}, " "); !ok || got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if _, ok := Default().Cache.Shared.Bucket(); ok {
		t.Error("without a URL there is a bucket")
	}
}

func TestAURLThatIsNoBucketIsRefusedWithoutQuotingAPassword(t *testing.T) {
	for _, text := range []string{
		"layers", "https://s3.corp.example/layers", "s3://", "s3:///layers", "s3://La", "s3://a", "s3://layers/a b", "s3://layers/../x",
		"s3://layers?endpoint=s3.corp.example", "s3://layers?endpoint=https://s3.corp.example/path", "s3://layers?endpoint=ftp://s3.corp.example",
		"s3://key:hunter2@layers", "s3://layers?endpoint=https://key:hunter2@s3.corp.example", "s3://layers?secret_key=hunter2",
		"s3://layers?region=a&region=b", "s3://layers?region=eu west", "s3://layers?%zz", "s3://layers#x", "s3://layers/" + strings.Repeat("a", 600), "s3://layers?region=" + strings.Repeat("a", 4000),
	} {
		_, err := Load(writeConfig(t, "[cache.shared]\nurl = '"+text+"'\n"), nil)
		if err == nil {
			t.Errorf("%s is accepted", text)
			continue
		}
		if strings.Contains(err.Error()+problem.Hint(err), "hunter2") {
			t.Errorf("%s: the error quotes a password: %v", text, err)
		}
	}
}

func TestSharingNeedsACache(t *testing.T) {
	_, err := Load(writeConfig(t, "[cache]\ndir = ''\n[cache.shared]\nurl = 's3://layers'\n"), nil)
	if err == nil || !strings.Contains(err.Error(), "cache.shared.url") {
		t.Errorf("a store without a cache: %v", err)
	}
}
