package credential

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
)

const canary = "c4n4ry-s3cr3t"

// hidden is a struct of another package with a credential in a field of its own: fmt prints
// unexported fields without asking their methods.
type hidden struct {
	c  Credential
	s  Secret
	p  *Secret
	m  map[string]Secret
	l  []Credential
	in any
}

func TestNoOutputHoldsTheSecret(t *testing.T) {
	s := NewSecret(canary)
	c := Credential{Username: "me", Password: s, IdentityToken: s, Generation: generation(fileKind, "quay.io", Credential{Password: s}, "")}
	h := hidden{c, s, &s, map[string]Secret{"a": s}, []Credential{c}, c}
	text := auths("quay.io", "me:"+canary)
	file := fileWith(t, text)
	store := OpenStore(filepath.Join(t.TempDir(), "store", "credentials.json"))
	if err := store.Put(t.Context(), "quay.io", c); err != nil {
		t.Fatal(err)
	}
	mustLookup(t, file, "quay.io", "")
	mustLookup(t, store, "quay.io", "")

	for i, v := range []any{s, &s, c, &c, h, &h, file, store, Sources{file, store}, []any{c, &s}, errors.Join(fmt.Errorf("%v", s))} {
		outputs := map[string]string{
			"Sprint": fmt.Sprint(v),
			"text":   fmt.Sprintf("%v %+v %#v %s %q %x %X %d %t %8.3v", v, v, v, v, v, v, v, v, v, v),
			"logrus": viaLogrus(v, &logrus.TextFormatter{}),
			"json":   viaLogrus(v, &logrus.JSONFormatter{}),
			"slog":   viaSlog(v),
		}
		if data, err := json.Marshal(v); err == nil {
			outputs["encoding/json"] = string(data)
		}
		for name, out := range outputs {
			if holds(out, canary) {
				t.Errorf("%d (%T) by %s: %s", i, v, name, out)
			}
		}
	}
}

func viaLogrus(v any, f logrus.Formatter) string {
	var out bytes.Buffer
	log := logrus.New()
	log.SetOutput(&out)
	log.SetFormatter(f)
	log.WithField("v", v).WithError(fmt.Errorf("of %+v", v)).Warnf("%#v", v)
	return out.String()
}

func viaSlog(v any) string {
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Warn("m", "v", v)
	slog.New(slog.NewTextHandler(&out, nil)).Warn("m", "v", v)
	return out.String()
}

// holds looks for the secret plain, in base64 at any of its alignments, in hex, and
// as a list of bytes.
func holds(out, secret string) bool {
	forms := []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprintf("%d", []byte(secret)), "[]")}
	for _, before := range []string{"", "x", "xx"} {
		encoded := b64(before + secret)
		forms = append(forms, encoded[4:len(encoded)-4])
	}
	for _, form := range forms {
		if strings.Contains(out, form) {
			return true
		}
	}
	return false
}

func TestTheCanaryWouldBeFound(t *testing.T) {
	for _, out := range []string{"a " + canary, fmt.Sprintf("%x", canary), auths("quay.io", "me:"+canary), fmt.Sprintf("%d", []byte(canary))} {
		if !holds(out, canary) {
			t.Errorf("not found in %s", out)
		}
	}
}

func TestSecretsAreComparedByTheirText(t *testing.T) {
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(NewSecret("b")) || NewSecret("a").Equal(Secret{}) {
		t.Error("Equal is wrong")
	}
	if NewSecret("") != (Secret{}) || !NewSecret("").IsZero() || NewSecret("a").IsZero() || NewSecret("a").Reveal() != "a" || (Secret{}).Reveal() != "" {
		t.Error("the empty secret is not the zero one")
	}
}
