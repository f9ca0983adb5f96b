package config

import (
	"reflect"
	"strings"
	"testing"
)

const siteName = "[registry.\"docker.io\"]\nhosts = [\"docker.example.com\"]\n[site]\n"

func TestWhatASiteCannotBeServedWithIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"[site]\nlisten = [\"0.0.0.0:443\"]":                                     "the site has no name",
		siteName + `cert = "/a"`:                                                 "the certificate has no key",
		siteName + `key = "/a"`:                                                  "the key has no certificate",
		siteName + `tls = "files"`:                                               "the files are not named",
		siteName + "tls = \"acme\"\ncert = \"/a\"\nkey = \"/b\"":                 "the certificate in cert is not used",
		siteName + "tls = \"off\"\nhttp_listen = [\"0.0.0.0:80\"]":               "nothing to redirect to",
		siteName + `tls = "on"`:                                                  "is not a choice",
		siteName + `cert = "site.pem"`:                                           "relative path",
		siteName + `listen = ["127.0.0.1:305"]`:                                  "is in another list of addresses too",
		siteName + "listen = [\"0.0.0.0:443\"]\nhttp_listen = [\"0.0.0.0:443\"]": "is in another list of addresses too",
		siteName + `acme_directory = "http://ca.example/dir"`:                    "not the https URL",
		siteName + `acme_directory = "https://me:secret@ca.example/dir"`:         "not the https URL",
		siteName + `acme_email = "Me <me@example.com>"`:                          "not an email address",
		siteName + `allow = ["10.0.0.1/8"]`:                                      `write "10.0.0.0/8"`,
		siteName + `allow = ["example.com"]`:                                     "is not a network",
		siteName + `allow = ["fe80::1%eth0"]`:                                    "is not a network",
		siteName + `trusted_proxies = ["::ffff:10.0.0.0/104"]`:                   "IPv4 network written as IPv6",
		siteName + `allow = ["10.0.0.1", "10.0.0.1/32"]`:                         "occurs twice",
		siteName + `logins = ["*"]`:                                              "stands for every registry",
		siteName + `logins = ["registry.example"]`:                               "it has no table",
		siteName + `max_connections = -1`:                                        "out of range",
		siteName + `max_requests = 1_000_001`:                                    "out of range",
		siteName + `max_fills = "3"`:                                             "a whole number",
		siteName + `rate = "-1MiB"`:                                              "is not a size",
	} {
		_, err := Load(writeConfig(t, text), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}

func TestSiteOfVariables(t *testing.T) {
	c := mustLoad(t, siteName, "SIDEMIRROR_SITE_LISTEN=0.0.0.0:443,[::]:443", "SIDEMIRROR_SITE_ALLOW=10.0.0.0/8", "SIDEMIRROR_SITE_MAX_FILLS=5", "SIDEMIRROR_SITE_RATE=1MB")
	if len(c.Site.Listen) != 2 || c.Site.Allow[0].String() != "10.0.0.0/8" || c.Site.MaxFills != 5 || c.Site.Rate != 1e6 || c.Site.TLS != "acme" {
		t.Errorf("%+v", c.Site)
	}
}

func TestNamesOfTheSiteAreThoseOfItsRegistries(t *testing.T) {
	c := mustLoad(t, "[registry.\"ghcr.io\"]\nhosts = [\"ghcr.example.com\"]\n"+siteName)
	if want := []string{"docker.example.com", "ghcr.example.com"}; !reflect.DeepEqual(c.SiteNames(), want) {
		t.Errorf("%q", c.SiteNames())
	}
}
