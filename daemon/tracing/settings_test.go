package tracing

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/internal/problem"
)

func TestVariablesThatCannotBeUsedAreAProblemWithoutTheirValues(t *testing.T) {
	const at = "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"
	for _, variables := range [][]string{
		{"OTEL_EXPORTER_OTLP_ENDPOINT=secret:4317"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=unix:///secret"},
		{at, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"},
		{at, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json"},
		{at, "OTEL_EXPORTER_OTLP_HEADERS=secret"},
		{at, "OTEL_EXPORTER_OTLP_HEADERS=a b=secret"},
		{at, "OTEL_EXPORTER_OTLP_HEADERS=a=secret%0d%0ab"},
		{at, "OTEL_EXPORTER_OTLP_HEADERS=" + strings.Repeat("a=secret,", 10) + strings.Join(names(maxHeaders+1), ",")},
		{at, "OTEL_EXPORTER_OTLP_TIMEOUT=secret"},
		{at, "OTEL_EXPORTER_OTLP_COMPRESSION=secret"},
		{at, "OTEL_EXPORTER_OTLP_CERTIFICATE=/nonexistent/secret"},
		{at, "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=/nonexistent/secret"},
		{at, "OTEL_TRACES_EXPORTER=secret"},
	} {
		made, err := New("1", environment(variables...))
		var p *problem.Problem
		if made != nil || !errors.As(err, &p) || p.Code != "traces-misconfigured" || p.Hint == "" {
			t.Errorf("%q: %v, %v", variables, made, err)
			continue
		}
		if strings.Contains(p.Error()+p.Hint, "secret") || !strings.Contains(p.Error(), "OTEL_") {
			t.Errorf("%q: %s", variables, p.Error())
		}
	}
}

func TestASamplerThatIsUnknownIsAProblem(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "sometimes")
	made, err := New("1", environment("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"))
	if made != nil || err == nil {
		t.Errorf("%v, %v", made, err)
	}
}

func TestWithoutAReceiverNothingIsFollowed(t *testing.T) {
	for _, variables := range [][]string{
		nil, {"OTEL_SERVICE_NAME=x"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://a", "OTEL_SDK_DISABLED=true"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=http://a", "OTEL_TRACES_EXPORTER=none"},
		{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=http://a"},
	} {
		if made, err := New("1", environment(variables...)); made != nil || err != nil {
			t.Errorf("%q: %v, %v", variables, made, err)
		}
	}
}

func TestHeadersArePrintedNowhere(t *testing.T) {
	s, wrong := readSettings(environment("OTEL_EXPORTER_OTLP_ENDPOINT=http://a", "OTEL_EXPORTER_OTLP_HEADERS=authorization=hunter2"))
	if wrong != nil {
		t.Fatal(wrong)
	}
	if text := fmt.Sprintf("%v %+v %#v", s, s, *s); strings.Contains(text, "hunter2") {
		t.Error(text)
	}
}

// names returns n headers with different names.
func names(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("a%d=secret", i))
	}
	return list
}
