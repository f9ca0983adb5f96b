package main

import (
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 24, 2, 0, 0, 0, time.UTC)

func TestChangelogOfMarkdown(t *testing.T) {
	const text = "# Changelog\n\nWords.\n\n## [Unreleased]\n\n### Added\n\n- `serve`: one\n  two.\n- Three.\n\nNot of it.\n\n## [0.1.0] - 2026-01-02\n\n- Four.\n"
	all, err := parseChangelog(text, "0.2.0~git1", now)
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	const want = `sidemirror (0.2.0~git1) unstable; urgency=medium

  * serve: one two.
  * Three.

 -- ` + maintainer + `  Tue, 24 Nov 2026 02:00:00 +0000

sidemirror (0.1.0) unstable; urgency=medium

  * Four.

 -- ` + maintainer + `  Fri, 02 Jan 2026 00:00:00 +0000
`
	if got := debChangelog(all); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if got := rpmChangelog(all); strings.Count(got, "- semver: ") != 2 || !strings.Contains(got, `note: "serve: one two."`) {
		t.Errorf("%s", got)
	}
}

func TestChangelogOfARelease(t *testing.T) {
	all, err := parseChangelog("## [Unreleased]\n\n## [0.1.0] - 2026-01-02\n\n- One.\n", "0.1.0", now)
	if err != nil || len(all) != 1 || len(all[0].changes) != 1 || all[0].changes[0] != "One." {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := parseChangelog("## [Unreleased]\n\n## [0.1.0] - 2026-01-02\n\n- One.\n", "0.1.1", now); err != nil || len(all) != 2 || len(all[0].changes) != 1 {
		t.Errorf("a version that nothing was written of: %+v, %v", all, err)
	}
	if _, err := parseChangelog("## [0.1.0]\n\n- One.\n", "0.2.0", now); err == nil || !strings.Contains(err.Error(), "no date") {
		t.Errorf("a version without a date: %v", err)
	}
}

func TestWrapKeepsWordsWhole(t *testing.T) {
	got := wrap("aa bb cc "+strings.Repeat("x", 20)+" dd", 8)
	if strings.Join(got, "|") != "aa bb cc|"+strings.Repeat("x", 20)+"|dd" {
		t.Errorf("%q", got)
	}
}

func TestLicencesAreToldApart(t *testing.T) {
	const bsd = "Redistribution and use in source\nand binary forms, with or without modification"
	for text, want := range map[string]string{
		"                 Apache License\n   Version 2.0, January 2004":                 "Apache-2.0",
		"Permission is hereby granted, free of charge, to any\nperson obtaining a copy": "MIT",
		bsd + "\nNeither the name of it\nmay be used to endorse or promote products":    "BSD-3-Clause",
		bsd:                          "BSD-2-Clause",
		"GNU GENERAL PUBLIC LICENSE": "",
	} {
		if got := identify(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestCopyrightHolders(t *testing.T) {
	for _, test := range []struct {
		l    linked
		want string
	}{
		{linked{licence: "MIT", text: "The MIT License\n\nCopyright (c) 2014 A. B.\nCopyright © 2015 C"}, "2014 A. B|2015 C"},
		{linked{licence: "BSD-3-Clause", text: "Copyright 2009 The Go Authors.\nthe above copyright notice"}, "2009 The Go Authors"},
		{linked{licence: "Apache-2.0", text: "Copyright [yyyy] [name]", path: "a/b"}, "the authors of a/b"},
		{linked{licence: "Apache-2.0", notice: "B\nCopyright 2018 B, Inc.", path: "a/b"}, "2018 B, Inc"},
	} {
		if got := strings.Join(holders(test.l), "|"); got != test.want {
			t.Errorf("%+v: %q, want %q", test.l, got, test.want)
		}
	}
}

func TestConfigurationPage(t *testing.T) {
	const text = "# About.\n#\n#   cmd -x\n#\n# More.\n\n# What a is.\n#a = \"x\"\n\n[t]\n\n# What b-c is.\n#b = 1\n"
	page, err := makeConfigPage(text, now)
	if err != nil {
		t.Fatal(err)
	}
	const want = ".SH DESCRIPTION\nAbout.\n.PP\n.nf\n  cmd \\-x\n.fi\n.PP\nMore.\n.TP\n.B a = \\(dqx\\(dq\nWhat a is.\n.SH [t]\n.TP\n.B b = 1\nWhat b\\-c is.\n.SH EXIT STATUS\n"
	if _, rest, _ := strings.Cut(page, "toml\n.SH DESCRIPTION"); !strings.HasPrefix(".SH DESCRIPTION"+rest, want) {
		t.Errorf("%s", page)
	}
	for _, bad := range []string{"level = \"info\"\n", "# only words\n"} {
		if _, err := makeConfigPage(bad, now); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
