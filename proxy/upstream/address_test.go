package upstream

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddressesAreClassified(t *testing.T) {
	for want, addresses := range map[class]string{
		public: "1.1.1.1 8.8.8.8 2606:4700::1111 100.128.0.1 172.32.0.1 ::ffff:1.1.1.1 64:ff9b::101:101 2002:101:101::1 " +
			"168.63.129.17 192.0.1.1 2600:1901::1 2001:0:101:101:0:0:fefe:fefe 2600::5efe:101:101",
		loopback: "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::1 ::127.0.0.1 2001:0:101:101:0:0:80ff:fffe",
		private: "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 fd12::1 fec0::1 " +
			"::ffff:10.0.0.1 64:ff9b:1::1 ::ffff:0:10.0.0.1 " +
			"2600::5efe:a00:1",
		forbidden: "169.254.1.1 fe80::1 fe80::1%eth0 0.0.0.0 0.1.2.3 :: 224.0.0.1 ff02::1 255.255.255.255 240.0.0.1 192.0.0.170 100::1",
	} {
		for a := range strings.FieldsSeq(addresses) {
			if got := classify(netip.MustParseAddr(a)); got != want {
				t.Errorf("%s is of class %d, want %d", a, got, want)
			}
		}
	}
}

func TestTheMetadataServersOfTheCloudsAreForbidden(t *testing.T) {
	for cloud, addresses := range map[string]string{
		"AWS":           "169.254.169.254 169.254.170.2 169.254.170.23 fd00:ec2::254 fd00:ec2::23 fd00:ec2:0:1::254",
		"Google Cloud":  "169.254.169.254 fd20:ce::254",
		"Azure":         "169.254.169.254 168.63.129.16 fe80::1234:5678:9abc",
		"Oracle Cloud":  "169.254.169.254 192.0.0.192 fd00:c1::a9fe:a9fe",
		"Alibaba Cloud": "100.100.100.200",
		"DigitalOcean":  "169.254.169.254 fe80::a9fe:a9fe",
		"IBM Cloud":     "169.254.169.254",
		"OpenStack":     "169.254.169.254 fe80::a9fe:a9fe",
		"Tencent":       "169.254.0.23",
		"Scaleway":      "169.254.42.42 fd00:42::42",
		"Akamai":        "169.254.169.254 fd00:a9fe:a9fe::1",
	} {
		for a := range strings.FieldsSeq(addresses) {
			if classify(netip.MustParseAddr(a)) != forbidden {
				t.Errorf("%s: %s may be asked", cloud, a)
			}
		}
	}
	for name := range strings.FieldsSeq("metadata.google.internal METADATA.google.internal. metadata instance-data api.metadata.cloud.ibm.com") {
		if checkHost(name, loopback) == nil {
			t.Errorf("%s may be asked", name)
		}
	}
}

// Each of these leads to an address that may not be asked, by a translator on the way.
func TestAMetadataServerInsideAnIPv6AddressIsForbidden(t *testing.T) {
	for a := range strings.FieldsSeq("::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::ffff:168.63.129.16 ::ffff:100.100.100.200 ::ffff:192.0.0.192 " + // mapped
		"::169.254.169.254 ::ffff:0:169.254.169.254 " + // compatible, translated
		"64:ff9b::a9fe:a9fe 64:ff9b::a83f:8110 64:ff9b::6464:64c8 " + // NAT64
		"64:ff9b:1::a9fe:a9fe 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:a9:fe:a9fe:: 64:ff9b:1:0:a9:fea9:fe00:0 " + // a site's own
		"2600:1234:5678::a9fe:a9fe 2600:1234:a9fe:a9fe:: 2600:1234:5678:1:a8:3f81:1000:0 " + // a prefix that is not known
		"2002:a9fe:a9fe::1 2002:a83f:8110::1 2001:0:101:101:0:0:5601:5601 2600::5efe:a9fe:a9fe 2600::200:5efe:a83f:8110") {
		if got := classify(netip.MustParseAddr(a)); got != forbidden {
			t.Errorf("%s is of class %d", a, got)
		}
	}
}

func TestHostsThatAreAddressesInDisguise(t *testing.T) {
	for _, host := range strings.Fields("127.1 2130706433 0x7f000001 0x7f.1 127.0.0.1 0177.0.0.1 127.0.1 169.254.169.254 ::ffff:a9fe:a9fe ::1 1.2.3.4.5 10.0.0.1 127.0.0.1. 0x7f000001.") {
		if err := checkHost(host, public); err == nil {
			t.Errorf("%s is let through", host)
		}
	}
	for _, host := range strings.Fields("cdn.example a.b.c1 1.1.1.1 2606:4700::1111 0xabc.example s3.eu-west-1.amazonaws.com 1.2.3.4.example") {
		if err := checkHost(host, public); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range strings.Fields("127.0.0.1 ::1 localhost LOCALHOST. registry.localhost 169.254.1.1 metadata") {
		if checkHost(host, private) == nil {
			t.Errorf("%s is let through where only private addresses may be", host)
		}
	}
	if err := checkHost("10.0.0.1", private); err != nil {
		t.Errorf("a private upstream may redirect into private space: %v", err)
	}
	if err := checkHost("169.254.169.254", loopback); err == nil {
		t.Error("even a private upstream must not redirect to metadata")
	}
}

func FuzzCheckHost(f *testing.F) {
	f.Add("127.1")
	f.Add("::ffff:a9fe:a9fe")
	f.Fuzz(func(t *testing.T, host string) {
		if checkHost(host, public) != nil {
			return
		}
		if a, err := netip.ParseAddr(host); err == nil && classify(a) != public {
			t.Fatalf("%q is let through", host)
		}
	})
}
