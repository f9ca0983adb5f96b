package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

// Limits, in bytes, of what a person types or pipes. Access tokens can have some kilobytes.
const (
	maxUsername = 1 << 10
	maxPassword = 64 << 10
)

// prompt asks a person for what the command line does not say.
type prompt struct {
	in  io.Reader
	out io.Writer
}

// credential asks for a username and a password, and returns them as the store does.
func (p prompt) credential(username string, fromStdin bool) (credential.Credential, error) {
	username, err := p.username(username, fromStdin)
	if err != nil {
		return credential.Credential{}, err
	}
	password, err := p.password(fromStdin)
	if err != nil {
		return credential.Credential{}, err
	}
	// This process tries one login, so any generation is right.
	if username == identityUser {
		return credential.Credential{IdentityToken: password, Generation: "login"}, nil
	}
	return credential.Credential{Username: username, Password: password, Generation: "login"}, nil
}

func (p prompt) username(given string, fromStdin bool) (string, error) {
	if given != "" {
		return given, nil
	}
	if fromStdin || p.terminal() == nil {
		return "", errors.New("a username is needed: add --username")
	}
	fmt.Fprint(p.out, "username: ")
	// A terminal returns one line per read, so nothing of the password is read ahead.
	line, err := bufio.NewReader(io.LimitReader(p.in, maxUsername)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("reading the username: %w", err)
	}
	if line = strings.TrimSpace(line); line == "" {
		return "", errors.New("no username was given")
	}
	return line, nil
}

func (p prompt) password(fromStdin bool) (credential.Secret, error) {
	var text []byte
	var err error
	switch terminal := p.terminal(); {
	case fromStdin:
		text, err = io.ReadAll(io.LimitReader(p.in, maxPassword+1))
	case terminal != nil:
		text, err = p.hidden(terminal, "password: ")
	default:
		return credential.Secret{}, errors.New("standard input is not a terminal, so the password cannot be typed; pipe it in with --password-stdin")
	}
	if err != nil {
		return credential.Secret{}, fmt.Errorf("reading the password: %w", err)
	}
	if len(text) > maxPassword {
		return credential.Secret{}, fmt.Errorf("the password is longer than %d bytes", maxPassword)
	}
	// Remove one line ending, as echo and editors write it. Other white space may belong to the password.
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" {
		return credential.Secret{}, errors.New("the password is empty; with --password-stdin it comes from standard input, as in --password-stdin <FILE")
	}
	return credential.NewSecret(password), nil
}

// newPassword asks for a password that does not exist yet: on a terminal twice, because it does not
// show.
func (p prompt) newPassword(fromStdin bool) (credential.Secret, error) {
	first, err := p.password(fromStdin)
	terminal := p.terminal()
	if err != nil || fromStdin || terminal == nil {
		return first, err
	}
	second, err := p.hidden(terminal, "the same password again: ")
	if err != nil {
		return credential.Secret{}, fmt.Errorf("reading the password: %w", err)
	}
	if !first.Equal(credential.NewSecret(string(second))) {
		return credential.Secret{}, errors.New("the two passwords differ")
	}
	return first, nil
}

// terminal returns the terminal that p reads from, or nil.
func (p prompt) terminal() *os.File {
	if f, ok := p.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// hidden reads a line without echo. If a signal ends the process meanwhile, it restores the
// terminal first, so that the person sees what they type again.
func (p prompt) hidden(terminal *os.File, label string) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as nohup has it: it would not end the process
			signal.Notify(signals, s)
		}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-signals:
			_ = term.Restore(fd, before)
			signal.Reset(s)
			if number, ok := s.(syscall.Signal); ok {
				_ = syscall.Kill(os.Getpid(), number)
			}
		case <-done:
		}
	}()
	fmt.Fprint(p.out, label)
	text, err := term.ReadPassword(fd)
	fmt.Fprintln(p.out)
	signal.Stop(signals)
	close(done)
	<-ended
	return text, err
}
