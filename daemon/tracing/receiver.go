package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	maxTries    = 3 // of one batch
	firstPause  = time.Second
	maxResponse = 64 << 10 // bytes
)

// receiver sends spans to a receiver of OTLP by HTTP. It implements [otlptrace.Client]. The client of
// the OpenTelemetry module speaks gRPC too, which would make the program larger by a third.
type receiver struct {
	settings
	http *http.Client

	mu     sync.Mutex
	failed error // of the last batch
}

func newReceiver(s settings) *receiver {
	return &receiver{settings: s, http: &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: s.tls, ForceAttemptHTTP2: true,
			MaxIdleConns: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxResponse,
		},
		// Headers with secrets go nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Start implements [otlptrace.Client].
func (*receiver) Start(context.Context) error { return nil }

// Stop implements [otlptrace.Client].
func (r *receiver) Stop(context.Context) error {
	r.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements [otlptrace.Client]. It is called for one batch after the other.
func (r *receiver) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	err := r.upload(ctx, spans)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = err
	return err
}

// problem returns why the last batch could not be sent; nil if it was.
func (r *receiver) problem() *problem.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		return nil
	}
	return &problem.Problem{
		Code: "traces-not-received", Text: "traces are lost: " + r.failed.Error(),
		Hint: "check that a receiver of OTLP by HTTP listens at " + r.endpoint.Host + "; pulls do not depend on it",
	}
}

// upload sends a batch, and sends it again if the receiver may take it later.
func (r *receiver) upload(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// The message of the specification's request, ExportTraceServiceRequest, has the same bytes.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err == nil && r.gzip {
		body, err = compressed(body)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	pause := firstPause
	for try := 1; ; try++ {
		var after time.Duration
		after, err = r.post(ctx, body)
		if err == nil || after < 0 || try == maxTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(max(pause, after)):
		}
		pause *= 2
	}
}

func compressed(body []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(body)
	err = errors.Join(err, w.Close())
	return out.Bytes(), err
}

// post sends a batch once. If it fails, after is how long the receiver wants to be left alone; less
// than 0 if another try is of no use.
func (r *receiver) post(ctx context.Context, body []byte) (after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.endpoint.String(), bytes.NewReader(body))
	if err != nil {
		return -1, errors.New("the endpoint is no URL")
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("User-Agent", "sidemirror")
	if r.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	for name, value := range r.headers {
		req.Header.Set(name, value.Reveal())
	}
	resp, err := r.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // its URL may have a secret
			err = u.Err
		}
		return 0, fmt.Errorf("%s cannot be reached: %w", r.endpoint.Host, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxResponse)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return 0, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		after = time.Duration(min(max(seconds, 0), int(longestTimeout/time.Second))) * time.Second
	default:
		after = -1
	}
	return after, fmt.Errorf("%s answered %d", r.endpoint.Host, resp.StatusCode)
}
