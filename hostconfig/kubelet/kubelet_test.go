package kubelet

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

func TestThePluginsOfAKubelet(t *testing.T) {
	const unit, dropIn, environment = "usr/lib/systemd/system/kubelet.service", "usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", "etc/default/kubelet"
	const flags = "--image-credential-provider-config=/etc/k/config.yaml --image-credential-provider-bin-dir=/opt/k/bin"
	// As kubeadm's packages have it.
	const kubeadm = "[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=\nExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_EXTRA_ARGS\n"
	want := Plugins{"/etc/k/config.yaml", "/opt/k/bin"}
	for name, tt := range map[string]struct {
		files map[string]string
		args  []string
		want  Plugins
	}{
		"a host without a kubelet":      {},
		"a kubelet without plugins":     {files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet --v=2\n"}},
		"flags in the unit":             {files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet " + flags + "\n"}, want: want},
		"flags of kubeadm":              {files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet\n", dropIn: kubeadm, environment: "KUBELET_EXTRA_ARGS=\"" + flags + "\"\n"}, want: want},
		"a kubelet that runs":           {files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet\n"}, args: []string{"kubelet", "--image-credential-provider-config", "/etc/k/config.yaml", "--image-credential-provider-bin-dir", "/opt/k/bin"}, want: want},
		"one that runs without plugins": {files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet " + flags + "\n"}, args: []string{"kubelet"}},
		"one flag of the two":           {files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/etc/k/config.yaml\n"}},
		"relative paths":                {args: []string{"kubelet", "--image-credential-provider-config=config.yaml", "--image-credential-provider-bin-dir=bin"}},
		"unknown variables":             {files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/etc/%i --image-credential-provider-bin-dir=/opt/%i\n"}},
		"k3s":                           {files: map[string]string{"var/lib/rancher/credentialprovider/config.yaml": "{}", "var/lib/rancher/credentialprovider/bin/x": ""}, want: embedded},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tt.files {
				at := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			h, err := hostfs.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			got, ok := Find(h, tt.args)
			if got != tt.want || ok != (tt.want != Plugins{}) {
				t.Errorf("%+v, %v; want %+v", got, ok, tt.want)
			}
		})
	}
}
