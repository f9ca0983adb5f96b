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

// Bounds of what is typed or piped; access tokens run to some kilobytes.
const (
	maxUsername = 1 << 10
	maxPassword = 64 << 10
)

// prompt asks for what the command line does not say.
type prompt struct {
	in  io.Reader
	out io.Writer
}

// credential has the shape that the store gives back.
func (p prompt) credential(username string, fromStdin bool) (credential.Credential, error) {
	username, err := p.username(username, fromStdin)
	if err != nil {
		return credential.Credential{}, err
	}
	password, err := p.password(fromStdin)
	if err != nil {
		return credential.Credential{}, err
	}
	// One login is tried in this process, so that any generation will do.
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
		return "", errors.New("say whom to log in as with --username")
	}
	fmt.Fprint(p.out, "username: ")
	// The terminal gives one line a read, so that nothing of the password is read ahead.
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
		text, err = p.hidden(terminal)
	default:
		return credential.Secret{}, errors.New("standard input is not a terminal to ask for the password on: pipe it in, with --password-stdin")
	}
	if err != nil {
		return credential.Secret{}, fmt.Errorf("reading the password: %w", err)
	}
	if len(text) > maxPassword {
		return credential.Secret{}, fmt.Errorf("the password is longer than %d bytes", maxPassword)
	}
	// One line's end, as echo and editors leave it; other blanks may be the password's.
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if password == "" {
		return credential.Secret{}, errors.New("the password is empty")
	}
	return credential.NewSecret(password), nil
}

// terminal gives the terminal that p reads from, or nil.
func (p prompt) terminal() *os.File {
	if f, ok := p.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return f
	}
	return nil
}

// hidden reads a line without echo. A signal that ends us meanwhile must not leave
// the person with a terminal that shows nothing.
func (p prompt) hidden(terminal *os.File) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
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
	fmt.Fprint(p.out, "password: ")
	text, err := term.ReadPassword(fd)
	fmt.Fprintln(p.out)
	signal.Stop(signals)
	close(done)
	<-ended
	return text, err
}
