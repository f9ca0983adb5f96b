package web

import (
	"fmt"
	"time"
)

// words are the sentences of the live part in one language, by their key. A key and its placeholders
// are the same in all languages.
type words map[string]string

// say returns the sentence of that key with args in their places.
func (w words) say(key string, args ...any) string {
	text, ok := w[key]
	if !ok {
		panic("web: no words for " + key)
	}
	return fmt.Sprintf(text, args...)
}

// ago says how long before now something was.
func (w words) ago(now, then time.Time) string {
	if d := now.Sub(then); d >= time.Minute {
		return w.say("ago", w.span(d))
	}
	return w.say("just now")
}

// span says how long d is, in the two largest units at most.
func (w words) span(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return w.say("seconds", int(max(d, time.Second)/time.Second))
	case d < time.Hour:
		return w.say("minutes", int(d/time.Minute))
	case d < 24*time.Hour && d%time.Hour < time.Minute:
		return w.say("hours", int(d/time.Hour))
	case d < 24*time.Hour:
		return w.say("hours", int(d/time.Hour)) + " " + w.say("minutes", int(d%time.Hour/time.Minute))
	}
	return w.say("days", int(d/(24*time.Hour)))
}

// seconds says how long a pull took.
func seconds(d time.Duration, w words) string {
	if d < 10*time.Second {
		return w.say("seconds and tenths", max(d.Seconds(), .1))
	}
	return w.span(d)
}

// number writes n with a mark after each group of three digits.
func number(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// size writes a number of bytes in decimal units, as registries and engines do.
func size(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1000, 0
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	decimals := 0
	if value < 9.95 {
		decimals = 1
	}
	return fmt.Sprintf("%.*f %cB", decimals, value, units[unit])
}

var vocabulary = map[language]words{
	english: {
		"through":        "%s pulls through sidemirror.",
		"through, all":   "%s pull through sidemirror.",
		"past":           "%s does not pull through sidemirror.",
		"past, all":      "%s do not pull through sidemirror.",
		"runs":           "sidemirror runs on this host.",
		"serves":         "This is a registry mirror.",
		"engines pull":   "Engines on this host pull through sidemirror.",
		"partly":         "Only some pulls of %s go through sidemirror.",
		"none":           "No engine on this host pulls through sidemirror.",
		"no engine":      "sidemirror runs, and there is no container engine on this host yet.",
		"not known":      "sidemirror runs. No engine has pulled through it since it started.",
		"ask status":     "To see which engines use it, and what to do about the others, run",
		"configure them": "To configure the engines, run",
		"install one":    "sidemirror configures one as soon as you install it.",
		"see problems":   "A problem needs your attention:",
		"hub only":       "%s (Docker Hub only)",
		"engine of":      "%s of %s",
		"comma":          ", ",
		"space":          " ",
		"and":            " and ",

		"last pull":          "Last pull: %s.",
		"no pull":            "Nothing has been pulled since sidemirror started.",
		"ago":                "%s ago",
		"just now":           "just now",
		"seconds":            "%d s",
		"seconds and tenths": "%.1f s",
		"percent":            "%d %%",
		"minutes":            "%d min",
		"hours":              "%d h",
		"days":               "%d d",
		"for":                "for %s",
		"now":                "Now",
		"refresh":            "Refresh",
		"problems":           "Problems",
		"severe":             "Problem",
		"warning":            "Warning",
		"note":               "Note",
		"notes":              "Worth knowing",
		"what to do":         "What to do",
		"status hint":        "For details and what to do about it, run",
		"live heading":       "The last hour",

		"hit rate":       "Hit rate",
		"hit rate note":  "%d of %d responses came from the cache",
		"hit rate chart": "Hit rate in the last hour: %d %%.",
		"saved":          "Not downloaded again",
		"saved note":     "and %s fetched from registries",
		"saved chart":    "Bytes sent to engines in the last hour: %s from the cache, %s from registries.",
		"traffic":        "Sent to engines",
		"from cache":     "from the cache",
		"from registry":  "from registries",
		"hour ago":       "1 h ago",
		"peak":           "at most %s in %s",
		"nothing yet":    "nothing yet",
		"cache":          "Stored",
		"cache note":     "of at most %s",
		"cache off":      "Nothing is stored: cache.dir is empty.",
		"cache chart":    "%s of %s are used.",
		"budget":         "%s pulls left",
		"budget of":      "of %d",
		"budget of in":   "of %d in %s",
		"budget chart":   "%d of %d pulls are left.",
		"budget login":   "with your login",
		"budget host":    "without a login",
		"budget reset":   "more in %s",
		"budget hub":     "Docker Hub reports it with the next pull",

		"under way":   "Being pulled now",
		"progress":    "%s of %s",
		"from server": "from %s",
		"pulls":       "Pulls",
		"image":       "Image",
		"engine":      "Engine",
		"size":        "Size",
		"source":      "Source",
		"time":        "Time",
		"speed":       "Speed",
		"when":        "When",
		"stored":      "cache",
		"fetched":     "registry",
		"mixed":       "%d %% cache",
		"checked":     "up to date",
		"failed":      "failed",
		"no pulls":    "No pull in the last hour.",
		"more pulls":  "and %d earlier ones",
		"names":       "Image names are hidden from you: another user, or a program in a container, could ask for this page too. Root sees them. To show them to every user of this host, put this into /etc/sidemirror/config.toml:",
		"about":       "Figures are rounded down.",
		"upstreams":   "Upstreams",
		"reachable":   "reachable",
		"unreachable": "out of reach",
		"no upstream": "No registry has been asked yet.",
		"copy":        "Copy",
		"copied":      "Copied",
		"copy failed": "Select the text and copy it with your keyboard.",
		"skip":        "Skip to the content",
		"languages":   "Language",
		"stale":       "sidemirror does not respond. The figures are old.",
	},
	chinese: {
		"through":        "%s 的镜像经由 sidemirror 拉取。",
		"through, all":   "%s 的镜像都经由 sidemirror 拉取。",
		"past":           "%s 的镜像不经由 sidemirror 拉取。",
		"past, all":      "%s 的镜像都不经由 sidemirror 拉取。",
		"runs":           "sidemirror 正在本机运行。",
		"serves":         "这里是镜像加速站。",
		"engines pull":   "本机的容器引擎正在经由 sidemirror 拉取镜像。",
		"partly":         "%s 只有部分镜像经由 sidemirror 拉取。",
		"none":           "本机没有容器引擎经由 sidemirror 拉取镜像。",
		"no engine":      "sidemirror 正在运行，本机尚未安装容器引擎。",
		"not known":      "sidemirror 正在运行。自启动以来，还没有容器引擎经由它拉取镜像。",
		"ask status":     "要查看哪些引擎正在使用它，以及其他引擎该怎么办，请运行",
		"configure them": "要配置容器引擎，请运行",
		"install one":    "安装容器引擎后，sidemirror 会自动完成配置。",
		"see problems":   "有问题需要处理：",
		"hub only":       "%s（仅限 Docker Hub）",
		"engine of":      "%[2]s 的 %[1]s",
		"comma":          "、",
		"space":          "",
		"and":            " 和 ",

		"last pull":          "最近一次拉取：%s。",
		"no pull":            "自 sidemirror 启动以来还没有拉取过镜像。",
		"ago":                "%s前",
		"just now":           "刚刚",
		"seconds":            "%d 秒",
		"seconds and tenths": "%.1f 秒",
		"percent":            "%d%%",
		"minutes":            "%d 分钟",
		"hours":              "%d 小时",
		"days":               "%d 天",
		"for":                "已持续 %s",
		"now":                "现在",
		"refresh":            "刷新",
		"problems":           "问题",
		"severe":             "问题",
		"warning":            "注意",
		"note":               "说明",
		"notes":              "说明",
		"what to do":         "处理办法",
		"status hint":        "要查看详情和处理办法，请运行",
		"live heading":       "最近一小时",

		"hit rate":       "命中率",
		"hit rate note":  "%[2]d 个响应中有 %[1]d 个来自缓存",
		"hit rate chart": "最近一小时的命中率：%d%%。",
		"saved":          "无需重复下载",
		"saved note":     "另从仓库下载 %s",
		"saved chart":    "最近一小时发送给引擎的数据：来自缓存 %s，来自仓库 %s。",
		"traffic":        "发送给引擎的数据",
		"from cache":     "来自缓存",
		"from registry":  "来自仓库",
		"hour ago":       "1 小时前",
		"peak":           "%[2]s内最多 %[1]s",
		"nothing yet":    "暂无数据",
		"cache":          "已缓存",
		"cache note":     "上限 %s",
		"cache off":      "没有缓存任何内容：cache.dir 为空。",
		"cache chart":    "已使用 %s，上限 %s。",
		"budget":         "%s 剩余拉取次数",
		"budget of":      "共 %d 次",
		"budget of in":   "每 %[2]s %[1]d 次",
		"budget chart":   "剩余 %d 次，共 %d 次。",
		"budget login":   "使用已登录的账号",
		"budget host":    "未登录",
		"budget reset":   "%s后恢复",
		"budget hub":     "下次拉取时 Docker Hub 会告知",

		"under way":   "正在拉取",
		"progress":    "%s / %s",
		"from server": "来自 %s",
		"pulls":       "拉取记录",
		"image":       "镜像",
		"engine":      "引擎",
		"size":        "大小",
		"source":      "来源",
		"time":        "用时",
		"speed":       "速度",
		"when":        "时间",
		"stored":      "缓存",
		"fetched":     "仓库",
		"mixed":       "缓存 %d%%",
		"checked":     "已是最新",
		"failed":      "失败",
		"no pulls":    "最近一小时没有拉取。",
		"more pulls":  "另有更早的 %d 次",
		"names":       "这里不显示镜像名称：其他用户或容器中的程序也可以打开本页。root 用户可以看到。要让本机所有用户都能看到，请在 /etc/sidemirror/config.toml 中写入：",
		"about":       "数字为约数，向下取整。",
		"upstreams":   "上游",
		"reachable":   "可以访问",
		"unreachable": "无法访问",
		"no upstream": "还没有访问过任何仓库。",
		"copy":        "复制",
		"copied":      "已复制",
		"copy failed": "请选中文字，用键盘复制。",
		"skip":        "跳到正文",
		"languages":   "语言",
		"stale":       "sidemirror 没有响应，数字不是最新的。",

		// Titles of problems by their code. In English they come with the problem.
		"title no-configuration":            "所有请求都被拒绝",
		"title configuration-not-in-force":  "磁盘上的配置无法使用",
		"title port-unprivileged":           "任何用户都能占用这个端口",
		"title name-server-denied":          "无法访问域名服务器",
		"title cache-missing":               "没有缓存任何内容",
		"title cache-read-only":             "无法缓存新内容",
		"title cache-disk-full":             "磁盘已满，无法缓存新内容",
		"title state-unwritable":            "无法保存当前生效的配置",
		"title shared-store-unusable":       "无法与其他主机共享缓存",
		"title shared-store-refused":        "共享存储拒绝了本机的访问",
		"title shared-store-no-bucket":      "共享存储的存储桶不存在",
		"title shared-store-clock":          "共享存储与本机的时钟不一致",
		"title shared-store-wrong-content":  "共享存储中的内容有误",
		"title shared-store-unreachable":    "无法访问共享存储",
		"title shared-store-slow":           "共享存储速度过慢",
		"title shared-store-full":           "共享存储已满",
		"title shared-store-read-only":      "共享存储不接受上传",
		"title credentials-unreadable":      "无法读取登录凭据",
		"title login-refused":               "登录被拒绝",
		"title upstream-unreachable":        "无法访问镜像仓库或其镜像站",
		"title upstream-skipped":            "镜像源响应较慢，暂时跳过",
		"title rate-limit-used-up":          "镜像仓库暂时不再响应请求",
		"title metrics-unavailable":         "无法提供监控指标",
		"title traces-misconfigured":        "链路追踪的设置有误，未发送任何数据",
		"title traces-not-received":         "链路追踪数据未能送达",
		"title guests-not-served":           "未能为虚拟机和容器网络提供服务",
		"title guests-not-a-bridge":         "所配置的接口不是网桥，未在其上提供服务",
		"title guests-port-privileged":      "缺少权限，无法在网桥上监听该端口",
		"title guests-port-taken":           "网桥上的端口已被占用",
		"title guests-too-many":             "网桥过多，部分未提供服务",
		"title site-not-served":             "未能提供站点服务",
		"title site-http-taken":             "站点仅通过 https 提供服务",
		"title site-without-name":           "站点没有域名",
		"title site-terms":                  "尚未同意 ACME 服务器的服务条款",
		"title site-certificate-missing":    "站点没有证书",
		"title site-certificate-unreadable": "无法读取站点的证书",
		"title site-certificate-expired":    "站点的证书目前无效",
		"title site-certificate-name":       "站点的证书不包含所用的域名",
		"title site-certificate-old":        "站点的证书未能续期",
		"title site-users-unreadable":       "无法读取站点的用户",
		"title trust-by-user-alone":         "只能按用户区分调用方",
	},
}
