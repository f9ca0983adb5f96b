package sdnotify

import (
	"slices"
	"testing"
)

func TestEnvironmentOfAUnitComesAfterTheManagers(t *testing.T) {
	const unit = "/org/freedesktop/systemd1/unit/docker_2eservice "
	type file struct {
		Path     string
		Optional bool
	}
	manager := []string{"LANG=C.UTF-8", `HTTPS_PROXY=http://u:p%40s"\'é@proxy:1`}
	s := &systemd{properties: map[string]any{
		"/org/freedesktop/systemd1 Environment": manager,
		unit + "LoadState":                      "loaded",
		unit + "Environment":                    []string{"HTTPS_PROXY=http://other:1"},
		unit + "EnvironmentFiles":               []file{{"/etc/default/docker", true}, {"/etc/proxy", false}},
		unit + "UnsetEnvironment":               []string{"LANG"},
	}}
	set, files, unset, err := Units{s.dial}.Environment(t.Context(), "docker.service")
	s.wait.Wait()
	if err != nil || !slices.Equal(set, append(manager, "HTTPS_PROXY=http://other:1")) {
		t.Errorf("set %q, %v", set, err)
	}
	if !slices.Equal(files, []string{"-/etc/default/docker", "/etc/proxy"}) || !slices.Equal(unset, []string{"LANG"}) {
		t.Errorf("files %q, unset %q", files, unset)
	}
}

func TestEnvironmentWithoutAnyVariable(t *testing.T) {
	const unit = "/org/freedesktop/systemd1/unit/docker_2eservice "
	s := &systemd{properties: map[string]any{
		"/org/freedesktop/systemd1 Environment": []string{}, unit + "LoadState": "loaded", unit + "Environment": []string{},
	}}
	set, files, unset, err := Units{s.dial}.Environment(t.Context(), "docker.service")
	s.wait.Wait()
	if err != nil || len(set)+len(files)+len(unset) > 0 {
		t.Errorf("%q, %q, %q, %v", set, files, unset, err)
	}
}

func TestEnvironmentOfAUnitThatDoesNotExistIsEmpty(t *testing.T) {
	s := &systemd{properties: map[string]any{
		"/org/freedesktop/systemd1 Environment":                     []string{"A=1"},
		"/org/freedesktop/systemd1/unit/docker_2eservice LoadState": "not-found",
	}}
	set, _, _, err := Units{s.dial}.Environment(t.Context(), "docker.service")
	s.wait.Wait()
	if err != nil || set != nil {
		t.Errorf("%q, %v", set, err)
	}
}
