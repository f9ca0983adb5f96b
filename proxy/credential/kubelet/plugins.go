// Package kubelet asks the kubelet's credential provider plugins, as its own configuration file sets
// them up (kubelet.config.k8s.io/v1, credentialprovider.kubelet.k8s.io/v1).
package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
	"github.com/sidemirror/sidemirror/proxy/credential/renewal"
)

const (
	kind  = "plugin"
	limit = time.Minute
	// longestLife bounds how long an answer is stored, whatever the plugin says.
	longestLife = 7 * 24 * time.Hour
	// maxResponses bounds the answers of one plugin.
	maxResponses = 1024
)

// Plugins is a [credential.Source]: the plugins of one configuration. The first that has a login for
// an image wins, in the order of the configuration.
type Plugins struct {
	runner  *program.Runner
	plugins []*plugin
	fault   error // why there are none, or which are skipped
	answers renewal.Answers
}

// New returns the plugins that the file or folder at path configures. runner runs them. If the
// configuration is faulty there are none, and [Plugins.Fault] returns the reason.
func New(path string, runner *program.Runner) *Plugins {
	p := &Plugins{runner: runner}
	providers, skipped, err := load(path)
	p.fault = err
	if len(skipped) > 0 {
		p.fault = &problem.Problem{
			Code: "plugins-skipped", Path: path,
			Text: "not used, because they need the service account token of a pod: " + strings.Join(skipped, ", "),
			Hint: "give this host a plugin of its own, without tokenAttributes",
		}
	}
	for _, each := range providers {
		p.plugins = append(p.plugins, newPlugin(each))
	}
	return p
}

// Lookup is [credential.Source.Lookup].
func (p *Plugins) Lookup(ctx context.Context, registry, repository string) (credential.Credential, error) {
	if len(p.plugins) == 0 && p.fault != nil {
		return credential.Credential{}, p.fault
	}
	image := strings.TrimSuffix(registry+"/"+repository, "/")
	var faults []error
	for _, each := range p.plugins {
		if !each.isFor(image) {
			continue
		}
		c, err := p.answers.Get(ctx, each.Name+" "+image, func(ctx context.Context, refused bool) (renewal.Answer, error) {
			return each.answer(ctx, p.runner, image, refused)
		})
		if err == nil && !c.IsZero() {
			return c, nil
		}
		faults = append(faults, err)
	}
	return credential.Credential{}, errors.Join(faults...)
}

// Fault returns what is wrong with the configuration, which plugin cannot be run, or what failed
// when it was last run; nil for nothing.
func (p *Plugins) Fault() error {
	if p.fault != nil {
		return p.fault
	}
	for _, each := range p.plugins {
		if _, err := p.runner.Find(each.Name); err != nil {
			return err
		}
	}
	return p.answers.Fault()
}

// Close ends the plugins that run.
func (p *Plugins) Close() { p.answers.Close() }

// plugin is one provider and its answers.
type plugin struct {
	provider
	globs []glob
	env   []string

	mu        sync.Mutex
	keyType   string // of its last answer; "" if there was none
	responses map[string]*response
	running   map[string]chan struct{} // by scope: holds a value while the plugin runs
}

func newPlugin(p provider) *plugin {
	each := &plugin{provider: p, responses: map[string]*response{}, running: map[string]chan struct{}{}}
	for _, pattern := range p.MatchImages {
		g, _ := parseGlob(pattern) // load has checked it
		each.globs = append(each.globs, g)
	}
	for _, v := range p.Env {
		each.env = append(each.env, v.Name+"="+v.Value)
	}
	return each
}

func (p *plugin) isFor(image string) bool {
	for _, g := range p.globs {
		if g.matches(image) {
			return true
		}
	}
	return false
}

// response is an answer of a plugin.
type response struct {
	auth    map[string]login
	fetched time.Time
	life    time.Duration
}

type login struct {
	Username string            `json:"username"`
	Password credential.Secret `json:"password"`
}

// fresh reports whether r need not be renewed yet.
func (r *response) fresh(now time.Time) bool {
	return r != nil && now.Before(r.fetched.Add(r.life*7/10))
}

// answer returns what the plugin has for image: from an answer that it gave for another image, if
// that is for this one too, or by running it.
func (p *plugin) answer(ctx context.Context, runner *program.Runner, image string, refused bool) (renewal.Answer, error) {
	began := time.Now()
	end, err := p.enter(ctx, image)
	if err != nil {
		return renewal.Answer{}, err
	}
	defer end()
	r := p.stored(image)
	if !r.fresh(time.Now()) || refused && r.fetched.Before(began) {
		if r, err = p.run(ctx, runner, image); err != nil {
			return renewal.Answer{}, err
		}
	}
	found, ok := choose(r.auth, image)
	life := max(0, time.Until(r.fetched.Add(r.life)))
	if !ok {
		return renewal.Answer{Life: life}, nil
	}
	c := credential.Credential{Username: found.Username, Password: found.Password}
	if !c.IsZero() {
		if err := credential.Check(c); err != nil {
			return renewal.Answer{}, p.failed("returned a login that cannot be sent: " + err.Error())
		}
	}
	return renewal.Answer{Credential: credential.Name(kind, p.Name+" "+image, c), Life: life, Grace: r.life}, nil
}

// enter waits until no run of the plugin is under way whose answer may be for image as well.
func (p *plugin) enter(ctx context.Context, image string) (end func(), err error) {
	p.mu.Lock()
	scope := "every image" // its first answer says for what its answers are
	if p.keyType != "" {
		scope = p.scope(p.keyType, image)
	}
	slot := p.running[scope]
	if slot == nil {
		if len(p.running) > maxResponses {
			clear(p.running)
		}
		slot = make(chan struct{}, 1)
		p.running[scope] = slot
	}
	p.mu.Unlock()
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// scope returns what an answer with that cacheKeyType for image is for.
func (p *plugin) scope(keyType, image string) string {
	switch keyType {
	case "Registry":
		registry, _, _ := strings.Cut(image, "/")
		return "registry " + registry
	case "Global":
		return "global"
	}
	return "image " + image
}

// stored returns the answer that is for image, or nil.
func (p *plugin) stored(image string) *response {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, keyType := range []string{"Image", "Registry", "Global"} {
		if r := p.responses[p.scope(keyType, image)]; r.fresh(time.Now()) {
			return r
		}
	}
	return nil
}

// run asks the plugin and stores its answer.
func (p *plugin) run(ctx context.Context, runner *program.Runner, image string) (*response, error) {
	request, err := json.Marshal(map[string]string{"kind": "CredentialProviderRequest", "apiVersion": p.APIVersion, "image": image})
	if err != nil {
		return nil, err
	}
	out, err := runner.Run(ctx, program.Command{Name: p.Name, Args: p.Args, Env: p.env, Stdin: request, Limit: limit})
	if err != nil {
		return nil, err
	}
	if out.Status != 0 {
		return nil, p.failed(fmt.Sprintf("failed with status %d", out.Status))
	}
	var answer struct {
		Kind          string           `json:"kind"`
		APIVersion    string           `json:"apiVersion"`
		CacheKeyType  string           `json:"cacheKeyType"`
		CacheDuration *duration        `json:"cacheDuration"`
		Auth          map[string]login `json:"auth"`
	}
	if json.Unmarshal([]byte(out.Text.Reveal()), &answer) != nil || answer.Kind != "CredentialProviderResponse" {
		return nil, p.failed("printed what is not a CredentialProviderResponse")
	}
	switch {
	case answer.APIVersion != p.APIVersion:
		return nil, p.failed("answered in another version than " + p.APIVersion)
	case answer.CacheKeyType != "Image" && answer.CacheKeyType != "Registry" && answer.CacheKeyType != "Global":
		return nil, p.failed("printed no cacheKeyType that the kubelet knows")
	}
	life := p.DefaultCacheDuration.Duration
	if answer.CacheDuration != nil {
		life = answer.CacheDuration.Duration
	}
	r := &response{auth: answer.Auth, fetched: time.Now(), life: min(max(life, 0), longestLife)}
	p.store(p.scope(answer.CacheKeyType, image), answer.CacheKeyType, r)
	return r, nil
}

func (p *plugin) store(scope, keyType string, r *response) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keyType = keyType
	if r.life == 0 {
		delete(p.responses, scope)
		return
	}
	if len(p.responses) >= maxResponses {
		clear(p.responses)
	}
	p.responses[scope] = r
}

func (p *plugin) failed(what string) error {
	return &problem.Problem{
		Code: "helper-failed", Text: "the credential provider plugin " + p.Name + " " + what,
		Hint: "see its own documentation, and run it by hand as the user sidemirror" + program.SandboxHint(),
	}
}
