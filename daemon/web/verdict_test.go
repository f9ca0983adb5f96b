package web

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestVerdictSaysWhetherTheEnginesPullThroughHere(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name        string
		live        Live
		tone        tone
		sentence    string
		command, zh string
	}{
		{"all do", Live{Watched: true, Engines: []Engine{{Name: "docker", Through: Yes}, {Name: "containerd", Home: "k3s", Through: Yes}, {Name: "crio", Through: Yes}}},
			good, "Docker, containerd of k3s and CRI-O pull through sidemirror.", "", "Docker、k3s 的 containerd 和 CRI-O 的镜像都经由 sidemirror 拉取。"},
		{"one does", Live{Watched: true, Engines: []Engine{{Name: "podman", Through: Yes}}},
			good, "podman pulls through sidemirror.", "", "podman 的镜像经由 sidemirror 拉取。"},
		{"Docker does what it can", Live{Watched: true, Engines: []Engine{{Name: "docker", Through: Yes, HubOnly: true}}},
			good, "Docker (Docker Hub only) pulls through sidemirror.", "", "Docker（仅限 Docker Hub） 的镜像经由 sidemirror 拉取。"},
		{"one does not", Live{Watched: true, Engines: []Engine{{Name: "docker", Through: Yes}, {Name: "podman", Through: No}}},
			warning, "podman does not pull through sidemirror. Docker pulls through sidemirror.", "sudo sidemirror apply", "podman 的镜像不经由 sidemirror 拉取。Docker 的镜像经由 sidemirror 拉取。"},
		{"none does", Live{Watched: true, Engines: []Engine{{Name: "docker", Through: No}, {Name: "podman", Through: Unknown}}},
			bad, "No engine on this host pulls through sidemirror.", "sudo sidemirror apply", "本机没有容器引擎经由 sidemirror 拉取镜像。"},
		{"some pulls do", Live{Watched: true, Engines: []Engine{{Name: "docker", Through: Partly}, {Name: "podman", Through: No}}},
			warning, "Only some pulls of Docker go through sidemirror.", "sudo sidemirror status", "Docker 只有部分镜像经由 sidemirror 拉取。"},
		{"there is none", Live{Watched: true},
			unsure, "sidemirror runs, and there is no container engine on this host yet.", "", "sidemirror 正在运行，本机尚未安装容器引擎。"},
		{"not known, and none was seen", Live{},
			unsure, "sidemirror runs. No engine has pulled through it since it started.", "sudo sidemirror status", "sidemirror 正在运行。自启动以来，还没有容器引擎经由它拉取镜像。"},
		{"not known, and one was seen", Live{LastPull: now},
			good, "Engines on this host pull through sidemirror.", "", "本机的容器引擎正在经由 sidemirror 拉取镜像。"},
		{"all do, and there is a severe problem", Live{Watched: true, Engines: []Engine{{Name: "podman", Through: Yes}}, Problems: []Problem{{Severe: true}}},
			warning, "podman pulls through sidemirror.", "", "podman 的镜像经由 sidemirror 拉取。"},
		{"all do, and there is a small problem", Live{Watched: true, Engines: []Engine{{Name: "podman", Through: Yes}}, Problems: []Problem{{}}},
			good, "podman pulls through sidemirror.", "", "podman 的镜像经由 sidemirror 拉取。"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := judge(c.live, vocabulary[english])
			if v.Tone != c.tone || v.Sentence != c.sentence || v.Command != c.command {
				t.Errorf("%s, %q, %q", v.Tone, v.Sentence, v.Command)
			}
			if v.Command != "" && v.Advice == "" {
				t.Error("there is a command without advice")
			}
			if zh := judge(c.live, vocabulary[chinese]); zh.Sentence != c.zh || zh.Tone != c.tone {
				t.Errorf("in Chinese: %s, %q", zh.Tone, zh.Sentence)
			}
		})
	}
}

func TestEveryWordExistsInBothLanguagesWithTheSamePlaceholders(t *testing.T) {
	verb := regexp.MustCompile(`%(?:\[(\d)\])?(\.1f|[sd%])`)
	placeholders := func(text string) (list []string) {
		n := 0
		for _, m := range verb.FindAllStringSubmatch(text, -1) {
			if m[2] == "%" {
				continue
			}
			n++
			at := m[1]
			if at == "" {
				at = string(rune('0' + n))
			}
			list = append(list, at+m[2])
		}
		slices.Sort(list)
		return list
	}
	for key, text := range vocabulary[english] {
		other, ok := vocabulary[chinese][key]
		if a, b := placeholders(text), placeholders(other); !ok || !slices.Equal(a, b) {
			t.Errorf("%s: %q has the placeholders %v, and %q %v", key, text, a, other, b)
		}
	}
	for key := range vocabulary[chinese] {
		if _, ok := vocabulary[english][key]; !ok && !strings.HasPrefix(key, "title ") {
			t.Errorf("%s is not in English", key)
		}
	}
}

func TestLivePartIsWholeInBothLanguagesWhateverIsKnown(t *testing.T) {
	for name, live := range map[string]func() Live{
		"much":    busy(true).Live,
		"nothing": func() Live { return Live{} },
		"no time": func() Live {
			return Live{Pulls: []Pull{{}}, Budgets: []Budget{{}}, Traffic: []Traffic{{}}, Upstreams: []Upstream{{Away: true}}}
		},
	} {
		for _, lang := range []string{"en", "zh"} {
			info := Info{Live: live, ShowImages: true}
			resp, body := get(t, info, "GET", "localhost:305", "/?part=live&lang="+lang)
			if resp.StatusCode != 200 || strings.Contains(body, "%!") || strings.Contains(body, "ZgotmplZ") || strings.Contains(body, "<no value>") {
				t.Errorf("%s in %s: status %d, %s", name, lang, resp.StatusCode, body)
			}
			if strings.Contains(body, "<html") {
				t.Errorf("%s in %s: the part is a whole page", name, lang)
			}
		}
	}
}
