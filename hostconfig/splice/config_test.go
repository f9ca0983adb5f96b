package splice

import "testing"

const (
	criV2  = `[plugins."io.containerd.grpc.v1.cri".registry]`
	runcV2 = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n"
)

func TestRemoveConfigPathFindsTheSettingByItsMark(t *testing.T) {
	for _, text := range []string{
		"version = 2\n" + criV2 + "\n  config_path = '' # why\n" + runcV2,
		"version = 2\n" + criV2 + "\n" + runcV2,
		"version = 2\n" + runcV2,
		"version = 2",
		"version = 2\r\n" + criV2,
	} {
		out, err := SetConfigPath("f", []byte(text), SectionV2, certsFolder)
		if err != nil {
			t.Fatal(err)
		}
		r, err := RemoveConfigPath("f", out)
		if err != nil || !r.Found || string(r.Rest) != text {
			t.Errorf("%q became %q: %v, %v", text, r.Rest, r.Found, err)
		}
	}
}
