package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"
)

var (
	tableLine = regexp.MustCompile(`^#?\[(.+)\]$`)
	keyLine   = regexp.MustCompile(`^#([a-z_]+ = .*)$`)
	proseLine = regexp.MustCompile(`^#(?: (.*))?$`)
)

// configPage makes the manual page of the configuration from the file that is
// installed, which documents every key right above it.
func configPage(name string, at time.Time) (string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return makeConfigPage(string(text), at)
}

func makeConfigPage(text string, at time.Time) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH SIDEMIRROR\\-CONFIG.TOML 5 %s sidemirror \"File Formats\"\n", at.Format(time.DateOnly))
	b.WriteString(".SH NAME\nsidemirror\\-config.toml \\- configuration of sidemirror\n")
	b.WriteString(".SH SYNOPSIS\n.I /etc/sidemirror/config.toml\n.SH DESCRIPTION\n")
	keys, begun := 0, false
	var prose []string
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if m := tableLine.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(&b, ".SH [%s]\n%s", quoted(m[1]), paragraph(prose))
			prose = nil
		} else if m := keyLine.FindStringSubmatch(line); m != nil {
			fmt.Fprintf(&b, ".TP\n.B %s\n%s", quoted(m[1]), paragraph(prose))
			prose = nil
			keys++
		} else if m := proseLine.FindStringSubmatch(line); m != nil {
			prose = append(prose, m[1])
		} else if line == "" {
			if len(prose) > 0 {
				if begun {
					b.WriteString(".PP\n")
				}
				b.WriteString(paragraph(prose))
				prose, begun = nil, true
			}
		} else {
			return "", fmt.Errorf("config.toml:%d: neither a comment nor a key in one: %s", i+1, line)
		}
	}
	if keys == 0 {
		return "", errors.New("config.toml: no key in it")
	}
	b.WriteString(configSections)
	b.WriteString(".SH SEE ALSO\n.BR sidemirror (1),\n.BR sidemirror\\-config\\-check (1),\n.BR sidemirror\\-config\\-show (1),\n.BR sidemirror.service (8)\n")
	return b.String(), nil
}

// configSections are what every manual page has.
const configSections = `.SH EXIT STATUS
.BR sidemirror\-config\-check (1)
exits with 0 if a file can be used, and with 2 if not.
.SH ENVIRONMENT
.TP
.B SIDEMIRROR_CONFIG
Another file.
.TP
.B SIDEMIRROR_<KEY>
The value of a key, which overrides the file.
The name is that of the key in capital letters, with _ for every other character:
SIDEMIRROR_LOG_LEVEL for log.level.
The elements of a list have commas between them.
.SH FILES
.TP
.I /etc/sidemirror/config.toml
The file that is read if no other is named.
If it is missing, the defaults apply.
.TP
.I /var/lib/sidemirror/
The last valid configuration, which stays in force if the file is faulty.
`

// paragraph sets lines of prose: empty ones begin a new paragraph, and indented ones are left as they
// are.
func paragraph(lines []string) string {
	var b strings.Builder
	asIs, apart := false, false
	for _, line := range lines {
		if line == "" {
			apart = b.Len() > 0
			continue
		}
		verbatim := strings.HasPrefix(line, "  ")
		if asIs && !verbatim {
			b.WriteString(".fi\n")
		}
		if apart {
			b.WriteString(".PP\n")
		}
		if verbatim && !asIs {
			b.WriteString(".nf\n")
		}
		asIs, apart = verbatim, false
		b.WriteString(escape(line) + "\n")
	}
	if asIs {
		b.WriteString(".fi\n")
	}
	return b.String()
}

// quoted is for the arguments of a macro, where quotes have a meaning.
func quoted(text string) string { return strings.ReplaceAll(escape(text), `"`, `\(dq`) }

func escape(line string) string {
	line = strings.ReplaceAll(strings.ReplaceAll(line, `\`, `\e`), "-", `\-`)
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		line = `\&` + line
	}
	return line
}
