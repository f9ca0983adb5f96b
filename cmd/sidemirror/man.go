package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// newManCommand returns the command that writes the manual pages for packages. It is part of the
// program because the pages describe the flags of this very binary, and hidden because only the
// build of a package needs it. cobra's own generator joins the lines of a list into one paragraph
// and needs three more modules.
func newManCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages into a folder",
		Hidden: true,
		Args:   oneArg("a folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := buildTime(os.Getenv("SOURCE_DATE_EPOCH"))
			if err != nil {
				return err
			}
			return writePages(cmd.Root(), args[0], at.Format(time.DateOnly))
		},
	}
}

// buildTime returns the time in SOURCE_DATE_EPOCH (reproducible-builds.org), or now.
func buildTime(seconds string) (time.Time, error) {
	if seconds == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, usageError{fmt.Errorf("SOURCE_DATE_EPOCH is not a number of seconds: %q", seconds)}
	}
	return time.Unix(n, 0).UTC(), nil
}

func writePages(cmd *cobra.Command, folder, date string) error {
	name := filepath.Join(folder, pageName(cmd)+".1")
	if err := os.WriteFile(name, []byte(manPage(cmd, date)), 0o644); err != nil {
		return fmt.Errorf("writing a manual page: %w", err)
	}
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		if err := writePages(sub, folder, date); err != nil {
			return err
		}
	}
	return nil
}

// pageName is "sidemirror-cache-ls".
func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// manPage is one command's page in man(7).
func manPage(cmd *cobra.Command, date string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p(".TH %s 1 %s %q %q", strings.ToUpper(pageName(cmd)), date, "sidemirror", "User Commands")
	p(".SH NAME\n%s \\- %s", roffLiteral(pageName(cmd)), roff(lowerFirst(cmd.Short)))
	p(".SH SYNOPSIS\n%s", synopsis(cmd))
	p(".SH DESCRIPTION\n%s", roffText(cmd.Long, cmd.Short+"."))
	if cmd.HasAvailableSubCommands() {
		p(".SH COMMANDS")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				p(".TP\n.BR %s (1)\n%s.", roffLiteral(pageName(sub)), roff(sub.Short))
			}
		}
	}
	p(".SH OPTIONS\n%s", manFlags(cmd))
	p("%s", manSection("EXIT STATUS", "B", exits(cmd)))
	p("%s", manSection("ENVIRONMENT", "B", variables(cmd)))
	p("%s", manSection("FILES", "I", usedFiles(cmd)))
	if cmd.Example != "" {
		p(".SH EXAMPLES\n%s", verbatim(strings.Split(cmd.Example, "\n")))
	}
	p(".SH SEE ALSO\n%s", seeAlso(cmd))
	return b.String()
}

func synopsis(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return ".B " + roffLiteral(cmd.CommandPath()) + "\n.I COMMAND\n.RI [ FLAG ...]"
	}
	_, args, _ := strings.Cut(cmd.Use, " ")
	text := ".B " + roffLiteral(cmd.CommandPath()) + "\n.RI [ FLAG ...]"
	if args != "" {
		text += "\n" + roff(args)
	}
	return text
}

func manFlags(cmd *cobra.Command) string {
	var list []string
	add := func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\-\-` + roffLiteral(f.Name)
		if f.Shorthand != "" {
			name = `\-` + f.Shorthand + ", " + name
		}
		head := ".B \"" + name + "\""
		if value != "" {
			head = ".BI \"" + name + " \" " + value
		}
		switch f.DefValue {
		case "", "0", "false", "[]":
		default:
			usage += " (default " + f.DefValue + ")"
		}
		list = append(list, ".TP\n"+head+"\n"+roff(usage))
	}
	cmd.InitDefaultHelpFlag()
	cmd.NonInheritedFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	return strings.Join(list, "\n")
}

func seeAlso(cmd *cobra.Command) string {
	names := []string{}
	if cmd.HasParent() {
		names = append(names, pageName(cmd.Parent())+"(1)")
	}
	around := cmd
	if !cmd.HasAvailableSubCommands() {
		around = cmd.Parent()
	}
	for _, sub := range around.Commands() {
		if sub.IsAvailableCommand() && sub != cmd {
			names = append(names, pageName(sub)+"(1)")
		}
	}
	names = append(slices.Compact(names), "sidemirror-config.toml(5)", "sidemirror.service(8)")
	lines := make([]string, len(names))
	for i, name := range names {
		page, section, _ := strings.Cut(name, "(")
		end := ","
		if i == len(names)-1 {
			end = ""
		}
		lines[i] = fmt.Sprintf(".BR %s (%s%s", roffLiteral(page), section, end)
	}
	return strings.Join(lines, "\n")
}

// roffText sets a help text as wrapText does: paragraphs, lists, and what stays as it is.
func roffText(text, otherwise string) string {
	if text == "" {
		text = otherwise
	}
	var out []string
	for part := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if len(out) > 0 && !strings.HasPrefix(part, bullet) {
			out = append(out, ".PP")
		}
		if items := paragraphParts(part); strings.HasPrefix(part, bullet) {
			for _, item := range items {
				out = append(out, `.IP \(bu 2`, roff(strings.Join(strings.Fields(strings.TrimPrefix(item, bullet)), " ")))
			}
			continue
		}
		lines := strings.Split(part, "\n")
		if slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, "  ") }) {
			out = append(out, verbatim(lines))
			continue
		}
		for _, line := range lines {
			out = append(out, roff(line))
		}
	}
	return strings.Join(out, "\n")
}

func verbatim(lines []string) string {
	out := []string{".nf"}
	for _, line := range lines {
		out = append(out, guard(roffLiteral(line)))
	}
	return strings.Join(append(out, ".fi"), "\n")
}

// options matches flags and names in a sentence, whose hyphens a reader should be able to copy.
var options = lazyregexp.New(`(^|[ "(,=])(--?[a-z][a-z-]*|sidemirror-[a-z-]+)`)

// roff escapes a sentence.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	text = options().ReplaceAllStringFunc(text, roffHyphens)
	return guard(text)
}

// roffLiteral escapes what is typed.
func roffLiteral(text string) string {
	return roffHyphens(strings.ReplaceAll(text, `\`, `\e`))
}

func roffHyphens(text string) string { return strings.ReplaceAll(text, "-", `\-`) }

// guard keeps roff from reading a line as a request.
func guard(line string) string {
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}

func lowerFirst(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToLower(text[:1]) + text[1:]
}
