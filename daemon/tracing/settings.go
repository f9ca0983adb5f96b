package tracing

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

const (
	defaultTimeout = 10 * time.Second
	longestTimeout = time.Minute
	maxHeaders     = 32
	maxPEM         = 1 << 20 // bytes
)

// settings say where spans are sent, as the variables of the OpenTelemetry specification do:
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
type settings struct {
	endpoint *url.URL
	headers  map[string]secret.Secret
	timeout  time.Duration // for one batch, with all tries
	gzip     bool
	tls      *tls.Config // nil: the default
}

// reader reads the variables of traces, and remembers the first one that cannot be used.
type reader struct {
	getenv func(string) string
	wrong  *problem.Problem
}

// readSettings returns the settings; nil if spans are sent nowhere.
func readSettings(getenv func(string) string) (*settings, *problem.Problem) {
	r := &reader{getenv: getenv}
	_, endpoint := r.exporter("ENDPOINT")
	if endpoint == "" || strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	if e := getenv("OTEL_TRACES_EXPORTER"); e != "" && e != "otlp" {
		r.fault("OTEL_TRACES_EXPORTER", "sidemirror knows only the exporters otlp and none", "set it to otlp, or remove it")
	}
	r.protocol()
	s := &settings{endpoint: r.endpoint(), headers: r.headers(), timeout: r.timeout(), gzip: r.gzip(), tls: r.tls()}
	if r.wrong != nil {
		return nil, r.wrong
	}
	return s, nil
}

// exporter returns the name and the value of a variable of the exporter: the one for traces comes
// before the one for everything.
func (r *reader) exporter(name string) (variable, value string) {
	for _, variable = range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
		if value = strings.TrimSpace(r.getenv(variable)); value != "" {
			return variable, value
		}
	}
	return variable, ""
}

// fault records that a variable cannot be used. The value is not part of the text: it may be a secret.
func (r *reader) fault(variable, what, hint string) {
	if r.wrong == nil {
		r.wrong = &problem.Problem{Code: "traces-misconfigured", Text: "no traces are sent: " + variable + ": " + what, Hint: hint}
	}
}

func (r *reader) protocol() {
	const want = "http/protobuf"
	variable, value := r.exporter("PROTOCOL")
	switch value {
	case "", want:
	case "grpc":
		r.fault(variable, "sidemirror does not speak gRPC",
			"set it to "+want+", and the endpoint to the receiver's port for HTTP, which is 4318 by default")
	default:
		r.fault(variable, "sidemirror speaks only "+want, "set it to "+want)
	}
}

// endpoint returns the URL for traces. The path is appended to a URL that is for everything.
func (r *reader) endpoint() *url.URL {
	variable, value := r.exporter("ENDPOINT")
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		r.fault(variable, "it is not an http or https URL", "set it to a URL such as http://127.0.0.1:4318")
		return nil
	}
	if variable == "OTEL_EXPORTER_OTLP_ENDPOINT" {
		u = u.JoinPath("v1/traces")
	}
	return u
}

func (r *reader) headers() map[string]secret.Secret {
	variable, value := r.exporter("HEADERS")
	all := map[string]secret.Secret{}
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, escaped, found := strings.Cut(part, "=")
		text, err := url.PathUnescape(strings.TrimSpace(escaped))
		name = strings.TrimSpace(name)
		if !found || err != nil || len(all) == maxHeaders || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(text) {
			r.fault(variable, fmt.Sprintf("it is not a list of at most %d headers", maxHeaders), "write it as name=value,name=value, with what is special in a URL escaped")
			return nil
		}
		all[name] = secret.New(text)
	}
	return all
}

func (r *reader) timeout() time.Duration {
	variable, value := r.exporter("TIMEOUT")
	if value == "" {
		return defaultTimeout
	}
	n, err := strconv.Atoi(value)
	if err != nil || n <= 0 {
		r.fault(variable, "it is not a number of milliseconds", "set it to a number such as 10000")
	}
	return min(time.Duration(min(n, int(longestTimeout/time.Millisecond)))*time.Millisecond, longestTimeout)
}

func (r *reader) gzip() bool {
	variable, value := r.exporter("COMPRESSION")
	if value != "" && value != "none" && value != "gzip" {
		r.fault(variable, "sidemirror knows only gzip and none", "set it to gzip, or remove it")
	}
	return value == "gzip"
}

// tls returns the configuration that the files of certificates make; nil without any.
func (r *reader) tls() *tls.Config {
	caVariable, ca := r.exporter("CERTIFICATE")
	certVariable, cert := r.exporter("CLIENT_CERTIFICATE")
	_, key := r.exporter("CLIENT_KEY")
	if ca == "" && cert == "" {
		return nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	const hint = "name a PEM file that the user sidemirror can read"
	if ca != "" {
		pem, err := readPEM(ca)
		t.RootCAs = x509.NewCertPool()
		if err != nil || !t.RootCAs.AppendCertsFromPEM(pem) {
			r.fault(caVariable, "the certificate of the authority cannot be read", hint)
		}
	}
	if cert != "" {
		c, errCert := readPEM(cert)
		k, errKey := readPEM(key)
		pair, err := tls.X509KeyPair(c, k)
		if errCert != nil || errKey != nil || err != nil {
			r.fault(certVariable, "the client certificate and its key cannot be read", hint)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t
}

// readPEM reads a file that is not too large.
func readPEM(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(data) > maxPEM {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxPEM)
	}
	return data, err
}
