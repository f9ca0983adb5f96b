// Package metrics compares what sidemirror counts with what others count: an upstream that records
// each request, and Debian's Prometheus, which scrapes the metrics.
package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/quirky"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	registry = "r.test"
	repo     = "team/app"
	requests = 1000
)

// rig is a daemon in front of an upstream that counts, with Prometheus behind it.
type rig struct {
	*harness.Sidemirror
	t          *testing.T
	up         *quirky.Server
	metrics    string // address
	prometheus string // URL
}

// start runs all three. The upstream behaves as Docker Hub does.
func start(t *testing.T) *rig {
	t.Helper()
	up := quirky.New(t, quirky.Like("docker.io"))
	r := &rig{t: t, up: up, metrics: harness.FreeAddress(t)}
	r.Sidemirror = harness.Start(t, harness.Options{
		Registries: []harness.Registry{{Name: registry, Upstreams: []string{up.URL()}, Realms: []string{up.TokenOrigin()}}},
		Extra:      fmt.Sprintf("\n[metrics]\nlisten = [%q]\n", r.metrics),
	})
	r.prometheus = r.scraped()
	return r
}

// scraped starts Prometheus with the alert rules of the documentation.
func (r *rig) scraped() string {
	r.t.Helper()
	dir := r.t.TempDir()
	rules, err := filepath.Abs("../../docs/prometheus/alerts.yml")
	if err != nil {
		r.t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n- job_name: sidemirror\n  static_configs: [{targets: [%q]}]\n", rules, r.metrics)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		r.t.Fatal(err)
	}
	at := harness.FreeAddress(r.t)
	process.Start(r.t, "prometheus", exec.Command(process.Path(r.t, "prometheus"), "--config.file="+file,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at), func(string) error {
		resp, err := http.Get("http://" + at + "/-/ready")
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it responds %s", resp.Status)
		}
		return nil
	})
	return "http://" + at
}

// sample is a time series of an answer of Prometheus.
type sample struct {
	Metric map[string]string
	Value  [2]any
}

func (s sample) number(t *testing.T) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(fmt.Sprint(s.Value[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// query asks Prometheus.
func (r *rig) query(expression string) []sample {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.prometheus+"/api/v1/query?query="+url.QueryEscape(expression), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result json.RawMessage }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		r.t.Fatalf("%s: %s %v", expression, answer.Error, err)
	}
	var list []sample
	if err := json.Unmarshal(answer.Data.Result, &list); err != nil {
		r.t.Fatalf("%s: %v", expression, err)
	}
	return list
}

// sum returns the sum of a counter's series by one label.
func (r *rig) sum(metric, label string) map[string]int {
	r.t.Helper()
	by := map[string]int{}
	for _, s := range r.query(fmt.Sprintf("sum by (%s) (%s)", label, metric)) {
		by[s.Metric[label]] = int(s.number(r.t))
	}
	return by
}

// clients counts what clients send and get.
type clients struct {
	mu    sync.Mutex
	sent  int
	bytes int64
}

// pullMixed sends requests of many kinds, some at a time.
func (r *rig) pullMixed(images []quirky.Image) *clients {
	var c clients
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same requests each time
	var paths [][2]string
	for range requests {
		tag := random.IntN(len(images))
		i := images[tag]
		blob := i.Blobs[random.IntN(len(i.Blobs))].Digest.String()
		paths = append(paths, [][2]string{
			{"HEAD", fmt.Sprintf("manifests/v%d", tag)}, {"GET", fmt.Sprintf("manifests/v%d", tag)}, {"GET", "manifests/" + i.Digest.String()},
			{"GET", "blobs/" + blob}, {"GET", "blobs/" + blob}, {"HEAD", "blobs/" + blob}, {"RANGE", "blobs/" + blob},
			{"GET", "tags/list"}, {"GET", "manifests/missing"}, {"GET", "blobs/sha256:" + strings.Repeat("0", 64)},
		}[random.IntN(10)])
	}
	const together = 8
	harness.Together(together, func(n int) {
		client := harness.Client(r.t)
		for at := n; at < len(paths); at += together {
			method, header := paths[at][0], http.Header{"User-Agent": {"containerd/2.1.4"}}
			if method == "RANGE" {
				method = "GET"
				header.Set("Range", "bytes=10-99")
			}
			a := r.DoWith(client, method, "/v2/"+repo+"/"+paths[at][1]+"?ns="+registry, header)
			c.mu.Lock()
			c.sent++
			if a.Status < 300 {
				c.bytes += int64(len(a.Body))
			}
			c.mu.Unlock()
		}
	})
	return &c
}

func TestMetricsAgreeWithWhatTheUpstreamAndTheClientsCount(t *testing.T) {
	r := start(t)
	var images []quirky.Image
	for i := range 12 {
		images = append(images, quirky.NewImage(false, fmt.Sprint("metrics", i), 40_000+i, 3_000+i, 200))
		r.up.Add(repo, fmt.Sprintf("v%d", i), images[i])
	}
	c := r.pullMixed(images)
	r.settle()

	if n := r.query(`sum(sidemirror_requests_total{registry="` + registry + `"})`); len(n) != 1 || int(n[0].number(t)) != c.sent {
		t.Errorf("requests: %v, the clients sent %d", n, c.sent)
	}
	if n := r.query(`sum(sidemirror_request_duration_seconds_count{kind!="other",kind!="base"})`); len(n) != 1 || int(n[0].number(t)) != c.sent {
		t.Errorf("durations: %v, the clients sent %d", n, c.sent)
	}
	var sent int64
	for source, n := range r.sum("sidemirror_bytes_sent_total", "source") {
		t.Logf("%d bytes from %s", n, source)
		sent += int64(n)
	}
	if sent != c.bytes {
		t.Errorf("%d bytes, the clients got %d", sent, c.bytes)
	}
	for what, count := range map[quirky.Part]string{
		quirky.Registry: "sidemirror_upstream_requests_total", quirky.BlobStore: "sidemirror_upstream_redirected_requests_total", quirky.Token: "sidemirror_token_exchanges_total",
	} {
		want := map[string]int{}
		for _, q := range r.up.Requests(what, "", "") {
			want[strconv.Itoa(q.Status)]++
		}
		got := r.sum(count, "code")
		canceled := got["canceled"] + got["error"] // the upstream counts them by the status that it would have sent
		delete(got, "canceled")
		delete(got, "error")
		t.Logf("%s: %v, and %d without a response", count, got, canceled)
		if len(want) == 0 {
			t.Errorf("%s: the upstream counted nothing", what)
		}
		for code, n := range want {
			if missing := n - got[code]; missing < 0 || missing > canceled {
				t.Errorf("%s{code=%q} is %d, the upstream counted %d", count, code, got[code], n)
			}
		}
		for code := range got {
			if want[code] == 0 {
				t.Errorf("%s{code=%q} is %d, the upstream counted none", count, code, got[code])
			}
		}
	}
	if n := r.query(`sidemirror_rate_limit_remaining{registry="` + registry + `"}`); len(n) != 1 || n[0].number(t) != 76 {
		t.Errorf("rate limit: %v", n)
	}
	if n := r.query(`time() - sidemirror_engine_last_pull_timestamp_seconds{engine="containerd"}`); len(n) != 1 || n[0].number(t) < 0 {
		t.Errorf("the last pull: %v", n)
	}
	r.panels()
}

// settle waits until Prometheus has scraped what is counted now.
func (r *rig) settle() {
	r.t.Helper()
	_ = r.Log() // waits until no request is under way
	now := float64(time.Now().UnixMilli())/1000 + 1
	r.Eventually("Prometheus has scraped the last request", func() bool {
		n := r.query("timestamp(sidemirror_build_info)")
		return len(n) == 1 && n[0].number(r.t) > now
	})
}

// panels runs each query of the dashboard on what was scraped.
func (r *rig) panels() {
	r.t.Helper()
	data, err := os.ReadFile("../../docs/prometheus/dashboard.json")
	if err != nil {
		r.t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		r.t.Fatal(err)
	}
	r.Eventually("each counter has two samples", func() bool {
		n := r.query("min(count_over_time(sidemirror_token_exchanges_total[5m]))")
		return len(n) == 1 && n[0].number(r.t) >= 2
	})
	variables := strings.NewReplacer("$__range", "1h", "$__rate_interval", "1m", "$instance", ".*", "$job", ".*")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			if len(r.query(variables.Replace(target.Expr))) == 0 {
				r.t.Errorf("the panel %q shows nothing: %s", p.Title, target.Expr)
			}
		}
	}
}

func TestTheAlertRulesFireWhenTheyShould(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), process.Path(t, "promtool"), "test", "rules", "alerts_test.yml")
	cmd.Dir = "../../docs/prometheus"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	cmd = exec.CommandContext(t.Context(), process.Path(t, "promtool"), "check", "rules", "--lint-fatal", "alerts.yml")
	cmd.Dir = "../../docs/prometheus"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestTheMetricsAreAsPrometheusWantsThem(t *testing.T) {
	r := start(t)
	r.Get("/v2/"+repo+"/manifests/none?ns="+registry, nil)
	cmd := exec.CommandContext(t.Context(), process.Path(t, "promtool"), "check", "metrics")
	resp, err := http.Get("http://" + r.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	cmd.Stdin = resp.Body
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
