package oracle

import (
	_ "github.com/docker/cli/cli/config/configfile"
	_ "github.com/google/go-containerregistry/pkg/authn"
	_ "go.podman.io/image/v5/pkg/docker/config"
	_ "k8s.io/kubernetes/pkg/credentialprovider"
	_ "k8s.io/kubernetes/pkg/credentialprovider/plugin"
	_ "github.com/sidemirror/sidemirror/proxy/credential"
)
