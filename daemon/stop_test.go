package daemon

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestNewRequestsAreServedWhileStreamsFinish(t *testing.T) {
	release := make(chan struct{})
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), lasting(release))
	idle := keepAlive(t, addr)
	body := stream(t, addr)
	r.cancel()
	r.expect("STOPPING=1\nEXTEND_TIMEOUT_USEC=39000000\nSTATUS=finishing what is under way\n")
	if _, err := io.Copy(io.Discard, idle); err != nil {
		t.Errorf("the idle connection was not closed cleanly: %v", err)
	}
	for range 3 {
		resp, err := http.Get("http://" + addr + "/")
		if err != nil {
			t.Fatalf("a new request while a stream is under way: %v", err)
		}
		got, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(got) != "one" || !resp.Close {
			t.Errorf("it is answered %q, Connection: close %v", got, resp.Close)
		}
	}
	select {
	case err := <-r.ended:
		t.Fatalf("it ended before the stream, with %v", err)
	case <-r.fakes[0].closed:
		t.Fatal("it was closed under the stream")
	default:
	}
	close(release)
	if got, err := io.ReadAll(body); err != nil || string(got) != "begun done" {
		t.Errorf("the stream gave %q, %v", got, err)
	}
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	<-r.fakes[0].closed
	if got, err := get(t, addr); err == nil {
		t.Errorf("ended, it still answers %q", got)
	}
}

// Requests that came in later get a little more time, and no more.
func TestLateRequestsDoNotPreventTheEnd(t *testing.T) {
	first, second := make(chan struct{}), make(chan struct{})
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.RawQuery {
		case "":
			lasting(first)(w, req)
		case "soon":
			lasting(second)(w, req)
		default:
			lasting(nil)(w, req)
		}
	})
	underWay := stream(t, addr)
	r.cancel()
	r.expect("STOPPING=1")
	soon, never := stream(t, addr, "soon"), stream(t, addr, "never")
	close(first)
	if got, err := io.ReadAll(underWay); err != nil || string(got) != "begun done" {
		t.Errorf("the first gave %q, %v", got, err)
	}
	close(second)
	if got, err := io.ReadAll(soon); err != nil || string(got) != "begun done" {
		t.Errorf("the one that came later gave %q, %v", got, err)
	}
	if got, err := io.ReadAll(never); err == nil {
		t.Errorf("the one that does not end ended cleanly, with %q", got)
	}
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestStreamsAreCutAfterShutdownTimeout(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, "shutdown_timeout = '50ms'\n"+named("one", addr)), lasting(nil))
	body := stream(t, addr)
	r.cancel()
	if got, err := io.ReadAll(body); err == nil {
		t.Errorf("the stream ended cleanly with %q, as if that were all", got)
	}
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// Streams of a replaced configuration are under way like the others.
func TestStreamOfAnOlderConfigurationFinishesToo(t *testing.T) {
	release := make(chan struct{})
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), lasting(release))
	body := stream(t, addr)
	r.rewrite(named("two", addr))
	r.sighup()
	r.expect("RELOADING=1")
	r.expect("READY=1")
	r.cancel()
	r.expect("STOPPING=1")
	wantAnswer(t, addr, "two")
	close(release)
	if got, err := io.ReadAll(body); err != nil || string(got) != "begun done" {
		t.Errorf("the stream gave %q, %v", got, err)
	}
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	<-r.fakes[0].closed
	<-r.fakes[1].closed
}

func TestIdleDaemonCutsNothing(t *testing.T) {
	addr := freeAddr(t)
	r := begin(t, writeConfig(t, named("one", addr)), nil)
	keepAlive(t, addr)
	r.cancel()
	if err := r.end(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if strings.Contains(r.log.String(), "cutting") {
		t.Errorf("it cut something:\n%s", r.log)
	}
}
