package certificate

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// maxFile limits a file of certificates, in bytes.
const maxFile = 1 << 20

// accountFile is the key of the account at the ACME server.
const accountFile = "account.key"

// loadFiles reads the certificate and key that the settings name. p.mu must be locked.
func (p *Provider) loadFiles() {
	cert, err := readPair(p.settings.Cert, p.settings.Key)
	if err != nil {
		p.unreadable = unreadable(err, p.settings.Key)
		return
	}
	for _, e := range p.names {
		e.cert, e.err = cert, nil
	}
}

// Check returns what is wrong now with a certificate and its key as files of a site with these names;
// nil if nothing is.
func Check(cert, key string, names []string) *problem.Problem {
	pair, err := readPair(cert, key)
	if err != nil {
		return unreadable(err, key)
	}
	now := time.Now()
	for _, name := range names {
		if p := cmp.Or(notValid(pair.Leaf, name, now, "", renewFile(cert)), notFor(pair.Leaf, cert, name)); p != nil {
			return p
		}
	}
	return nil
}

// notValid returns a problem if a certificate is not valid at that time. why is what else is known.
func notValid(leaf *x509.Certificate, name string, now time.Time, why, renew string) *problem.Problem {
	p := &problem.Problem{Code: "site-certificate-expired"}
	switch {
	case now.After(leaf.NotAfter):
		p.Text, p.Hint = fmt.Sprintf("the certificate of %s expired %s%s", name, leaf.NotAfter.UTC().Format(time.RFC3339), why), renew
	case now.Before(leaf.NotBefore):
		p.Text = fmt.Sprintf("the certificate of %s is not valid before %s", name, leaf.NotBefore.UTC().Format(time.RFC3339))
		p.Hint = "check this host's clock: timedatectl"
	default:
		return nil
	}
	return p
}

// notFor returns a problem if the certificate in a file is not for name.
func notFor(leaf *x509.Certificate, file, name string) *problem.Problem {
	if leaf.VerifyHostname(name) == nil {
		return nil
	}
	return &problem.Problem{
		Code: "site-certificate-name", Text: fmt.Sprintf("the certificate in %s is not for %s", file, name),
		Hint: "use one for every name in the hosts of the registries",
	}
}

// renewFile returns what to do about a certificate in a file that is too old.
func renewFile(file string) string {
	return "renew " + file + "; sidemirror reads it again when it changes"
}

// CheckCA returns a problem if the file with the certificates to trust for an ACME server cannot be used.
func CheckCA(file string) *problem.Problem {
	_, err := readCA(file)
	if err == nil {
		return nil
	}
	return &problem.Problem{
		Code: "site-certificate-unreadable", Text: "the certificates to trust for the ACME server cannot be read", Err: err,
		Hint: "correct site.acme_ca; the user that sidemirror runs as must be able to read the file",
	}
}

func unreadable(err error, key string) *problem.Problem {
	hint := "correct the file; sidemirror reads it again when it changes"
	if errors.Is(err, fs.ErrPermission) {
		hint = "let the user that sidemirror runs as read it, as with: setfacl -m u:sidemirror:r " + key
	}
	return &problem.Problem{Code: "site-certificate-unreadable", Text: "the certificate of the site cannot be read", Err: err, Hint: hint}
}

func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	certPEM, err := readFile(certFile)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readFile(keyFile)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return &cert, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	return data, err
}

// loadStored reads the certificates that were issued earlier. If onlyMissing is true, it leaves alone
// those that are in use. p.mu must be locked.
func (p *Provider) loadStored(onlyMissing bool) {
	for name, e := range p.names {
		if onlyMissing && e.cert != nil {
			continue
		}
		data, err := readFile(filepath.Join(p.settings.Folder, name+".pem"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var cert tls.Certificate
		if err == nil {
			cert, err = tls.X509KeyPair(data, data)
		}
		if err == nil {
			e.cert = &cert
			continue
		}
		p.log(name, "the stored certificate cannot be read, and another one is obtained", err)
	}
}

// store writes a certificate with its key.
func store(folder, name string, key *ecdsa.PrivateKey, chain [][]byte) (*tls.Certificate, error) {
	data, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	for _, der := range chain {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	cert, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, fmt.Errorf("the ACME server issued a certificate that cannot be used: %w", err)
	}
	return &cert, write(folder, name+".pem", data)
}

// accountKey returns the key of the account at the ACME server, which it makes if there is none.
func accountKey(folder string) (*ecdsa.PrivateKey, error) {
	data, err := readFile(filepath.Join(folder, accountFile))
	if err == nil {
		if block, _ := pem.Decode(data); block != nil {
			if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
				return key, nil
			}
		}
		return nil, fmt.Errorf("%s has no key", filepath.Join(folder, accountFile))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	if data, err = encodeKey(key); err != nil {
		return nil, err
	}
	return key, write(folder, accountFile, data)
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// write writes a file that only this user can read.
func write(folder, name string, data []byte) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	return durable.Replace(dir, name, data, durable.Options{})
}
