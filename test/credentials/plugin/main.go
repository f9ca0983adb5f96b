// A credential provider plugin as the kubelet runs it (credentialprovider.kubelet.k8s.io/v1). It gets
// a password from the server at $ISSUER, as a cloud's plugin gets one from the cloud, and says that
// it holds for $LIFE. The username is $LOGIN, or AWS.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

const apiVersion = "credentialprovider.kubelet.k8s.io/v1"

type request struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Image      string `json:"image"`
}

type login struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

type response struct {
	Kind          string           `json:"kind"`
	APIVersion    string           `json:"apiVersion"`
	CacheKeyType  string           `json:"cacheKeyType"`
	CacheDuration string           `json:"cacheDuration"`
	Auth          map[string]login `json:"auth"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var asked request
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&asked); err != nil {
		return err
	}
	registry, _, _ := strings.Cut(asked.Image, "/")
	if asked.Kind != "CredentialProviderRequest" || asked.APIVersion != apiVersion || registry == "" {
		return fmt.Errorf("not a request of the kubelet: %s", text)
	}
	resp, err := http.Get(os.Getenv("ISSUER")) //nolint:gosec // the address is the test's
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	password, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d: %s %w", resp.StatusCode, password, err)
	}
	return json.NewEncoder(os.Stdout).Encode(response{
		Kind: "CredentialProviderResponse", APIVersion: apiVersion, CacheKeyType: "Registry", CacheDuration: os.Getenv("LIFE"),
		Auth: map[string]login{registry: {cmp.Or(os.Getenv("LOGIN"), "AWS"), string(password)}},
	})
}
