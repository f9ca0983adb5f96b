package shared

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/internal/secret"
)

const (
	// credentialName is the name of the systemd credential.
	credentialName = "shared-store"

	// unitCredentials is where systemd puts those of the service, for commands that root runs.
	unitCredentials = "/run/credentials/sidemirror.service"

	// maxCredentials bounds a file of credentials, in bytes.
	maxCredentials = 64 << 10

	// roleTimeout bounds each request for the credentials of the instance's role.
	roleTimeout = 2 * time.Second
)

// errCredentials says that there are no credentials.
var errCredentials = errors.New("there are no credentials for it")

// credentials returns where the credentials come from: the file that is configured, the systemd
// credential, the environment, or the role of the instance.
func (c Config) credentials(getenv func(string) string) *credentials.Credentials {
	if c.Credentials != "" {
		return credentials.New(&file{name: c.Credentials})
	}
	for _, dir := range []string{getenv("CREDENTIALS_DIRECTORY"), unitCredentials} {
		name := filepath.Join(dir, credentialName)
		if _, err := os.Stat(name); err == nil && dir != "" {
			return credentials.New(&file{name: name})
		}
	}
	if getenv("AWS_ACCESS_KEY_ID") != "" {
		return credentials.New(&credentials.EnvAWS{})
	}
	return credentials.New(&role{credentials.IAM{Client: &http.Client{Timeout: roleTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}})
}

// keys are what a store knows a host by.
type keys struct {
	id            string
	secret, token secret.Secret
}

// parseKeys reads the section [default] of a file as ~/.aws/credentials. Other keys, such as
// credential_process, have no effect.
func parseKeys(data []byte) (keys, error) {
	var k keys
	section := "default"
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			section = strings.TrimSpace(strings.Trim(line, "[]"))
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || section != "default" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
		case "aws_access_key_id":
			k.id = value
		case "aws_secret_access_key":
			k.secret = secret.New(value)
		case "aws_session_token":
			k.token = secret.New(value)
		}
	}
	if k.id == "" || k.secret.IsZero() {
		return keys{}, errors.New("no aws_access_key_id and aws_secret_access_key in the section [default]")
	}
	return k, nil
}

// file is a provider of credentials that are in a file. They are read again if the store refuses them.
type file struct{ name string }

// RetrieveWithCredContext implements [credentials.Provider].
func (f *file) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	data, err := readBounded(f.name, maxCredentials)
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: %w", errCredentials, err)
	}
	k, err := parseKeys(data)
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: %s: %w", errCredentials, f.name, err)
	}
	return credentials.Value{AccessKeyID: k.id, SecretAccessKey: k.secret.Reveal(), SessionToken: k.token.Reveal(), SignerType: credentials.SignatureV4}, nil
}

// Retrieve implements [credentials.Provider].
func (f *file) Retrieve() (credentials.Value, error) { return f.RetrieveWithCredContext(nil) }

// IsExpired implements [credentials.Provider].
func (f *file) IsExpired() bool { return false }

// CheckCredentials returns a problem if the file that has the credentials cannot be used. It asks no
// server.
func (s *Store) CheckCredentials() *problem.Problem {
	if s.config.Credentials == "" {
		return nil
	}
	if _, err := (&file{name: s.config.Credentials}).Retrieve(); err != nil {
		return &problem.Problem{Code: codeRefused, Text: "the shared store is not asked", Err: err, Hint: s.config.credentialsHint(err)}
	}
	return nil
}

// credentialsHint returns what to do if there are no credentials because of err.
func (c Config) credentialsHint(err error) string {
	const form = "aws_access_key_id and aws_secret_access_key, below [default]"
	switch {
	case c.Credentials == "":
		return "name a file with the keys in cache.shared.credentials: " + form
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("let the user sidemirror read it: chgrp sidemirror %s && chmod 640 %[1]s", c.Credentials)
	case errors.Is(err, fs.ErrNotExist):
		return "create that file with the keys, or correct cache.shared.credentials: " + form
	}
	return "write the keys into that file: " + form
}

// role is a provider of the credentials of the instance's role.
type role struct{ credentials.IAM }

// RetrieveWithCredContext implements [credentials.Provider].
func (r *role) RetrieveWithCredContext(c *credentials.CredContext) (credentials.Value, error) {
	v, err := r.IAM.RetrieveWithCredContext(c)
	if err != nil {
		return v, fmt.Errorf("%w: neither a file nor the environment has any, and the instance has no role: %s", errCredentials, clip(reason(err)))
	}
	return v, nil
}

// Retrieve implements [credentials.Provider].
func (r *role) Retrieve() (credentials.Value, error) { return r.RetrieveWithCredContext(nil) }
