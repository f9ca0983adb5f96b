package credential

import (
	"encoding/base64"
	"strings"
	"testing"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestLoginsAreFoundForTheirRepositoriesOnly(t *testing.T) {
	f := fileWith(t, auths(
		"quay.io", "host:p", "quay.io/org", "org:p", "quay.io/org/team", "team:p",
		"registry.corp.example:5000", "port:p", "ghcr.io/only", "only:p",
		"https://index.docker.io/v1/", "hub:p", "https://legacy.example/v1/", "legacy:p",
	))
	for _, tt := range []struct{ registry, repository, want string }{
		{"quay.io", "", "host:p"},
		{"QUAY.io", "other/image", "host:p"},
		{"quay.io", "org", "org:p"},
		{"quay.io", "org/image", "org:p"},
		{"quay.io", "organisation/image", "host:p"},
		{"quay.io", "org/team", "team:p"},
		{"quay.io", "org/team/image", "team:p"},
		{"quay.io", "org/teams/image", "org:p"},
		{"quay.io:443", "org/image", ""},
		{"registry.corp.example:5000", "x", "port:p"},
		{"registry.corp.example", "x", ""},
		{"registry.corp.example:5001", "x", ""},
		{"ghcr.io", "", ""},
		{"ghcr.io", "other/image", ""},
		{"ghcr.io", "only/image", "only:p"},
		{"docker.io", "library/alpine", "hub:p"},
		{"index.docker.io", "library/alpine", "hub:p"},
		{"registry-1.docker.io", "library/alpine", "hub:p"},
		{"legacy.example", "x", "legacy:p"},
		{"evil-quay.io", "x", ""},
		{"quay.io.evil.example", "x", ""},
		{"", "x", ""},
	} {
		if got := spell(mustLookup(t, f, tt.registry, tt.repository)); got != tt.want {
			t.Errorf("%s/%s: got %q, want %q", tt.registry, tt.repository, got, tt.want)
		}
	}
}

func TestEveryFormOfALoginIsRead(t *testing.T) {
	for name, tt := range map[string]struct{ entry, want string }{
		"auth":                        {`{"auth": "` + b64("me:pass") + `"}`, "me:pass"},
		"colons in the password":      {`{"auth": "` + b64("me:pa:ss:") + `"}`, "me:pa:ss:"},
		"not ASCII":                   {`{"auth": "` + b64("mé:pässwörd") + `"}`, "mé:pässwörd"},
		"unpadded":                    {`{"auth": "` + strings.TrimRight(b64("me:pass1"), "=") + `"}`, "me:pass1"},
		"zero bytes at the end":       {`{"auth": "` + b64("me:pass\x00\x00") + `"}`, "me:pass"},
		"empty password":              {`{"auth": "` + b64("me:") + `"}`, "me:"},
		"username and password":       {`{"username": "me", "password": "pass"}`, "me:pass"},
		"auth outdoes them":           {`{"username": "x", "password": "y", "auth": "` + b64("me:pass") + `"}`, "me:pass"},
		"identity token":              {`{"identitytoken": "idt"}`, "|idt"},
		"identity token and username": {`{"auth": "` + b64("me:") + `", "identitytoken": "idt"}`, "me|idt"},
		"<token> and identity token":  {`{"auth": "` + b64("<token>:") + `", "identitytoken": "idt"}`, "|idt"},
		// OpenShift's registries accept this as a password.
		"<token> with a password": {`{"auth": "` + b64("<token>:jwt") + `"}`, "<token>:jwt"},
		"<token> as username":     {`{"username": "<token>", "password": "jwt"}`, "<token>:jwt"},
		// A key file of Google's is the password of _json_key.
		"lines in the password":          {`{"auth": "` + b64("_json_key:{\n \"a\": 1\n}\n") + `"}`, "_json_key:{\n \"a\": 1\n}\n"},
		"lines in the password, spelled": {`{"username": "_json_key", "password": "{\n}"}`, "_json_key:{\n}"},
		"unknown fields":                 {`{"auth": "` + b64("me:pass") + `", "email": "x@y", "new": {"a": [1]}}`, "me:pass"},
		"empty: a helper has it":         {`{}`, ""},
		"null":                           {`null`, ""},
		"empty strings":                  {`{"auth": "", "username": ""}`, ""},
		"registry token and a password":  {`{"registrytoken": "r", "auth": "` + b64("me:pass") + `"}`, "me:pass"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fileWith(t, `{"HttpHeaders": {"X": "y"}, "auths": {"quay.io": `+tt.entry+`}}`)
			if got := spell(mustLookup(t, f, "quay.io", "a/b")); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestUselessLoginIsAnErrorForItsRegistryAlone(t *testing.T) {
	for name, value := range map[string]string{
		"not base64":           `{"auth": "canary!"}`,
		"no colon":             `{"auth": "` + b64("canary") + `"}`,
		"no username":          `{"auth": "` + b64(":canary") + `"}`,
		"password alone":       `{"password": "canary"}`,
		"registry token alone": `{"registrytoken": "canary"}`,
		"a number":             `{"password": 7263790, "username": "canary"}`,
		"a string":             `"canary"`,
		"an array":             `["canary"]`,
		"line break":           `{"username": "canary\nX-Evil: 1", "password": "x"}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := fileWith(t, `{"auths": {"quay.io/org": `+value+`, "ghcr.io": {"auth": "`+b64("me:pass")+`"}}}`)
			c, err := f.Lookup(t.Context(), "quay.io", "org/image")
			if err == nil || !c.IsZero() {
				t.Fatalf("got %q, %v; want an error", spell(c), err)
			}
			if !strings.Contains(err.Error(), "quay.io/org") || !strings.Contains(err.Error(), f.Path) {
				t.Errorf("does not say which: %v", err)
			}
			fault := f.Fault()
			if fault == nil || !strings.Contains(fault.Error(), "quay.io/org") {
				t.Errorf("fault: %v", fault)
			}
			for _, text := range []string{err.Error(), fault.Error()} {
				if strings.Contains(text, "canary") || strings.Contains(text, "7263790") {
					t.Errorf("quotes the secret: %s", text)
				}
			}
			if got := spell(mustLookup(t, f, "quay.io", "other/image")); got != "" {
				t.Errorf("quay.io/other: %q", got)
			}
			if got := spell(mustLookup(t, f, "ghcr.io", "x")); got != "me:pass" {
				t.Errorf("ghcr.io: %q", got)
			}
		})
	}
}

func TestHubLoginThatDockerWroteWinsOverItsOtherSpellings(t *testing.T) {
	f := fileWith(t, auths("docker.io", "plain:p", "index.docker.io", "index:p", "https://index.docker.io/v1/", "docker:p", "registry-1.docker.io", "r1:p"))
	if got := spell(mustLookup(t, f, "docker.io", "library/alpine")); got != "docker:p" {
		t.Errorf("got %q", got)
	}
}

// docker leaves {"auths": {"https://index.docker.io/v1/": {}}} where a helper has the login.
func TestEmptyEntryDoesNotHideARealOneOfTheSameKey(t *testing.T) {
	f := fileWith(t, `{"auths": {"https://index.docker.io/v1/": {}, "docker.io": {"auth": "`+b64("me:pass")+`"}}}`)
	if got := spell(mustLookup(t, f, "docker.io", "org/image")); got != "me:pass" {
		t.Errorf("got %q", got)
	}
}

// containers/image stops there.
func TestEmptyEntryForANamespaceMeansAnonymous(t *testing.T) {
	f := fileWith(t, `{"auths": {"quay.io/open": {}, "quay.io": {"auth": "`+b64("me:pass")+`"}, "*.quay.io": {"auth": "`+b64("other:pass")+`"}}}`)
	for repository, want := range map[string]string{"open/image": "", "open": "", "opened/image": "me:pass", "": "me:pass"} {
		if got := spell(mustLookup(t, f, "quay.io", repository)); got != want {
			t.Errorf("%s: got %q, want %q", repository, got, want)
		}
	}
}

// docker keeps its own tokens for the Hub's API under keys like those of logins.
func TestDockersAPITokensAreNotTakenForLogins(t *testing.T) {
	f := fileWith(t, auths("https://index.docker.io/v1/access-token", "me:canary", "https://index.docker.io/v1/refresh-token", "me:canary"))
	if got := spell(mustLookup(t, f, "docker.io", "v1/access-token")); got != "" {
		t.Errorf("got %q", got)
	}
	if err := f.Fault(); err != nil {
		t.Error(err)
	}
}

func TestDocumentInTroubleSaysWhereAndQuotesNothing(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"empty":             {"", "it is empty"},
		"blank":             {"\n \n", "it is empty"},
		"cut":               {"{\"auths\": {\n\"quay.io\": {\"auth\": \"canary", "line 2"},
		"not JSON":          {"{\n\n  canary: 1}", "line 3"},
		"an array":          {`["canary"]`, `{"auths": {…}}`},
		"auths an array":    {`{"auths": ["canary"]}`, `{"auths": {…}}`},
		"auths a string":    {`{"auths": "canary"}`, `{"auths": {…}}`},
		"a byte-order mark": {"\ufeff{}", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			f := fileWith(t, tt.text)
			_, err := f.Lookup(t.Context(), "quay.io", "a/b")
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), f.Path) {
				t.Errorf("got %v, want %q and the path", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("quotes the file: %v", err)
			}
		})
	}
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(auths("quay.io", "me:canary", "https://index.docker.io/v1/", "you:canary", "quay.io/org", "<token>:canary")))
	f.Add([]byte(`{"auths": {"quay.io": {"identitytoken": "canary"}, "x/y": {"registrytoken": "canary"}, "[::1]:5000": 7}}`))
	f.Add([]byte(`{"auths": null, "credsStore": "x", "credHelpers": {"quay.io": "y", "*.z": ""}} more`))
	f.Add([]byte(`{"https://quay.io/v1/": {"auth": "bWU6Y2FuYXJ5"}, "*.example.com:5000/org": {"username": "me"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := parseDocument(fileKind, data)
		if err != nil {
			if doc != nil {
				t.Error("an error and yet a document")
			}
			return
		}
		again, _ := parseDocument(fileKind, data)
		for i, e := range doc.entries {
			back, err := parseFileKey(joinKey(e.registry, e.namespace))
			if err != nil || back != e.fileKey {
				t.Errorf("key %q does not read back: %v %v", joinKey(e.registry, e.namespace), back, err)
			}
			if e.err != nil {
				if !e.credential.IsZero() {
					t.Error("an error and yet a credential")
				}
				continue
			}
			if e.credential.IsZero() != (e.credential.Generation == "") {
				t.Error("a credential without a generation, or the other way round")
			}
			if again.entries[i].credential.Generation != e.credential.Generation {
				t.Error("the same bytes give another generation")
			}
			if value, err := encodeLogin(e.credential, ""); err == nil {
				back, _, err := parseLogin(fileKind, value)
				if err != nil || spell(back) != spell(e.credential) {
					t.Errorf("does not survive being stored: %v", err)
				}
			}
		}
	})
}
