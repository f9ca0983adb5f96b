package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/siteconfig"
)

func newSiteCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "site",
		Short: "Serve other hosts on a domain of your own",
		Long: `Turn the mirror on a domain of your own on and off, and show what it serves. Other hosts
pull through it over https, as in "docker pull docker.example.com/library/alpine". They
are never trusted: they get no image that the registry does not show to everyone, unless
they log in to the registry themselves.`,
	}
	cmd.AddCommand(newSiteEnableCommand(g), newSiteDisableCommand(g), newSiteStatusCommand(), newSiteUserCommand(g))
	return cmd
}

// siteFlags are the flags of "site enable".
type siteFlags struct {
	acceptTerms, behindProxy bool
	email, directory, ca     string
	cert, key                string
	allow, trustedProxies    []string
	listen                   []string
	asJSON                   bool
}

func newSiteEnableCommand(g *globals) *cobra.Command {
	s := siteEdit{systemd: servedBySystemd}
	var f siteFlags
	cmd := f.command(&s)
	cmd.PreRun = func(cmd *cobra.Command, _ []string) {
		s.source = config.Source{Path: g.configPath, Environ: os.Environ()}
		s.out, s.json = cmd.OutOrStdout(), f.asJSON
	}
	return cmd
}

// command returns "site enable", which s does.
func (f *siteFlags) command(s *siteEdit) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enable NAME[=REGISTRY]...",
		Short: "Serve registries to other hosts, each by a name of your domain",
		Long: `Write into the configuration that each NAME stands for a registry, docker.io unless
REGISTRY names another one, and how the names get their certificates; and let systemd open
ports 443 and 80. The names must lead to this host.

Let's Encrypt issues the certificates, if you agree to its terms with --accept-terms, or
another ACME server that --acme-directory names. With --cert and --key you bring your own.
With --behind-proxy sidemirror serves plain HTTP to a reverse proxy that has the
certificate; its address must be in --trusted-proxy. If the proxy is on this host and has
port 443 itself, let sidemirror use another port with --listen.

Without --allow, hosts in the private networks of this host may ask. Every line that this
command writes is marked, and "site disable" removes exactly these. To change something,
run the command again with all names and flags. Users that "site user" has added stay.`,
		Example: `  sudo sidemirror site enable docker.example.com --accept-terms
  sudo sidemirror site enable docker.example.com ghcr.example.com=ghcr.io \
    --accept-terms --allow 10.0.0.0/8
  sudo sidemirror site enable docker.example.com --behind-proxy \
    --trusted-proxy 127.0.0.1 --listen 127.0.0.1:8305`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misused(cmd, errors.New("name the domain, as docker.example.com"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, err := f.settings(args)
			if err == nil {
				err = f.checkNames(args, s.knownRegistries())
			}
			if err != nil {
				return misused(cmd, err)
			}
			s.ownPorts = len(f.listen) > 0
			return s.enable(cmd.Context(), settings)
		},
	}
	cmd.Flags().BoolVar(&f.acceptTerms, "accept-terms", false, "agree to the terms of the ACME server")
	cmd.Flags().StringVar(&f.email, "email", "", "the `address` at which the ACME server can reach you")
	cmd.Flags().StringVar(&f.directory, "acme-directory", "", "the `URL` of another ACME server's directory")
	cmd.Flags().StringVar(&f.ca, "acme-ca", "", "a `file` with certificates to trust for the ACME server")
	cmd.Flags().StringVar(&f.cert, "cert", "", "a `file` with your own certificate and its chain")
	cmd.Flags().StringVar(&f.key, "key", "", "the `file` with its key")
	cmd.Flags().BoolVar(&f.behindProxy, "behind-proxy", false, "serve plain HTTP to a reverse proxy")
	cmd.Flags().StringSliceVar(&f.trustedProxies, "trusted-proxy", nil, "the `network` of a reverse proxy whose headers count")
	cmd.Flags().StringSliceVar(&f.listen, "listen", nil, "an `address` to serve at, such as 127.0.0.1:8305, instead of ports 443 and 80")
	cmd.Flags().StringSliceVar(&f.allow, "allow", nil, "a `network` whose hosts may ask")
	addJSON(cmd, &f.asJSON)
	return cmd
}

// settings returns what the command line asks to write.
func (f siteFlags) settings(args []string) ([]siteconfig.Setting, error) {
	ways := 0
	for _, given := range []bool{f.acceptTerms, f.cert != "" || f.key != "", f.behindProxy} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		return nil, errors.New("say where the certificate comes from, by one of --accept-terms, --cert with --key, and --behind-proxy")
	}
	hosts := map[string][]string{}
	var registries []string
	for _, arg := range args {
		name, registry := siteName(arg)
		if !slices.Contains(registries, registry) {
			registries = append(registries, registry)
		}
		hosts[registry] = append(hosts[registry], name)
	}
	var list []siteconfig.Setting
	for _, registry := range registries {
		list = append(list, siteconfig.Setting{Table: []string{"registry", registry}, Key: "hosts", Value: hosts[registry]})
	}
	add := func(key string, value any, given bool) {
		if given {
			list = append(list, siteconfig.Setting{Table: []string{"site"}, Key: key, Value: value})
		}
	}
	add("tls", "off", f.behindProxy)
	add("acme_accept_terms", true, f.acceptTerms)
	for key, value := range map[string]*string{"acme_email": &f.email, "acme_directory": &f.directory, "acme_ca": &f.ca, "cert": &f.cert, "key": &f.key} {
		add(key, *value, *value != "")
	}
	add("allow", f.allow, len(f.allow) > 0)
	add("listen", f.listen, len(f.listen) > 0)
	add("trusted_proxies", f.trustedProxies, len(f.trustedProxies) > 0)
	first := len(registries)
	slices.SortStableFunc(list[first:], func(a, b siteconfig.Setting) int { return strings.Compare(a.Key, b.Key) })
	return list, nil
}
