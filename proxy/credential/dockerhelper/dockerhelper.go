// Package dockerhelper asks Docker's credential helpers: programs called docker-credential-NAME.
package dockerhelper

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
	"github.com/sidemirror/sidemirror/proxy/credential/renewal"
)

const (
	kind  = "helper"
	limit = 15 * time.Second
)

const (
	// A helper does not say how long its answer holds. It is asked again after these times.
	unknownLife = 10 * time.Minute
	nothingLife = time.Minute // if it had none
	// unknownGrace is how long the last answer serves while the helper fails.
	unknownGrace = 12 * time.Hour
)

// nothing is what a helper that has no login prints, on its standard output, before it fails
// (docker-credential-helpers, credentials/error.go).
var nothing = []string{"credentials not found in native keychain", "no credentials server URL", "no credentials username"}

// cloud are the helpers that return a token of the machine's own account. Some return it whatever
// server they are asked about, so each is asked about its own registries only.
//
// life is half of what a token of theirs holds, since they may return one that they stored earlier.
type cloud struct {
	hosts []string
	life  time.Duration
}

var clouds = map[string]cloud{
	"ecr-login": {life: 6 * time.Hour, hosts: []string{
		"public.ecr.aws", "*.dkr.ecr.*.amazonaws.com", "*.dkr.ecr.*.amazonaws.com.cn", "*.dkr.ecr-fips.*.amazonaws.com",
		"*.dkr.ecr.*.amazonaws.eu", "*.dkr-ecr.*.on.aws", "*.dkr-ecr-fips.*.on.aws",
	}},
	"gcr":     google,
	"gcloud":  google,
	"acr-env": azure,
	"acr":     azure,
}

var (
	google = cloud{life: time.Hour / 2, hosts: []string{"gcr.io", "*.gcr.io", "*.pkg.dev"}}
	azure  = cloud{life: 90 * time.Minute, hosts: []string{"*.azurecr.io", "*.azurecr.cn", "*.azurecr.us"}}
)

// Helpers asks credential helpers and stores their answers. It implements [credential.Helpers].
type Helpers struct {
	runner  *program.Runner
	answers renewal.Answers
}

// New returns the helpers that runner runs.
func New(runner *program.Runner) *Helpers { return &Helpers{runner: runner} }

// Usable returns why the helper called name cannot be run, or nil.
func (h *Helpers) Usable(name string) error {
	_, err := h.runner.Find(command(name))
	return err
}

// For reports whether the helper called name may be asked about registry if a file names it for
// every registry.
func (h *Helpers) For(name, registry string) bool {
	c, known := clouds[name]
	if !known {
		return true
	}
	for _, pattern := range c.hosts {
		if credential.MatchHost(pattern, registry) {
			return true
		}
	}
	return false
}

// Get returns what the helper called name has for server, or the zero credential if it has none.
func (h *Helpers) Get(ctx context.Context, name, server string) (credential.Credential, error) {
	return h.answers.Get(ctx, name+" "+server, func(ctx context.Context, _ bool) (renewal.Answer, error) {
		return h.ask(ctx, name, server)
	})
}

// Fault returns why helpers failed when they were last asked, or nil.
func (h *Helpers) Fault() error { return h.answers.Fault() }

// Close ends the helpers that run.
func (h *Helpers) Close() { h.answers.Close() }

// ask runs a helper.
func (h *Helpers) ask(ctx context.Context, name, server string) (renewal.Answer, error) {
	out, err := h.runner.Run(ctx, program.Command{Name: command(name), Args: []string{"get"}, Stdin: []byte(server), Limit: limit})
	if err != nil {
		return renewal.Answer{}, err
	}
	if out.Status != 0 {
		return refused(name, server, out)
	}
	var answer struct {
		Username string            `json:"Username"`
		Secret   credential.Secret `json:"Secret"`
	}
	if json.Unmarshal([]byte(out.Text.Reveal()), &answer) != nil {
		return renewal.Answer{}, failed(name, server, "printed what is not the JSON of a login")
	}
	c := credential.Credential{Username: answer.Username, Password: answer.Secret}
	if answer.Username == credential.IdentityUser {
		c = credential.Credential{IdentityToken: answer.Secret}
	}
	if c.IsZero() {
		return renewal.Answer{Life: nothingLife}, nil
	}
	if err := credential.Check(c); err != nil {
		return renewal.Answer{}, failed(name, server, "returned a login that cannot be sent: "+err.Error())
	}
	life, grace := unknownLife, unknownGrace
	if known, ok := clouds[name]; ok {
		life, grace = known.life, known.life
	}
	return renewal.Answer{Credential: credential.Name(kind, name+" "+server, c), Life: life, Grace: grace}, nil
}

// refused returns what the failure of a helper means. What it printed may be a secret, and is only
// compared.
func refused(name, server string, out program.Output) (renewal.Answer, error) {
	text := out.Text.Reveal()
	for _, known := range nothing {
		if !strings.Contains(text, known) {
			continue
		}
		if _, isCloud := clouds[name]; isCloud {
			// These say so whatever went wrong: without a network, or without rights.
			return renewal.Answer{}, failed(name, server, "found no login")
		}
		return renewal.Answer{Life: nothingLife}, nil
	}
	return renewal.Answer{}, failed(name, server, "failed")
}

func failed(name, server, what string) error {
	return &problem.Problem{
		Code: "helper-failed", Text: command(name) + " " + what + " when it was asked for " + server,
		Hint: "see why: echo " + server + " | sudo -u sidemirror " + command(name) + " get" + program.SandboxHint(),
	}
}

func command(name string) string { return "docker-credential-" + name }

// Bound is a [credential.Source]: helpers, each for the registries that a pattern names.
type Bound struct {
	Helpers *Helpers
	Rules   []Rule // tried in this order
}

// Rule says which helper has the logins of the registries that match Pattern.
type Rule struct{ Pattern, Helper string }

// Lookup is [credential.Source.Lookup].
func (b *Bound) Lookup(ctx context.Context, registry, _ string) (credential.Credential, error) {
	for _, r := range b.Rules {
		if credential.MatchHost(r.Pattern, registry) {
			return b.Helpers.Get(ctx, r.Helper, credential.ServerName(registry))
		}
	}
	return credential.Credential{}, nil
}

// Fault returns why a helper cannot be run, or failed when it was last asked, or nil.
func (b *Bound) Fault() error {
	for _, r := range b.Rules {
		if err := b.Helpers.Usable(r.Helper); err != nil {
			return err
		}
	}
	return b.Helpers.Fault()
}
