package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// access reads what a server wants of whoever comes. A key is no part of a file
// that people show each other.
func access(b *Backend) fields {
	inline := func(s section) {
		s.Fault("a key does not belong in this file: put it into one of mode 0600, and its path into key_file; or name a credential of the service manager in key_credential")
	}
	return fields{
		"key_file": func(s section) { path(s, &b.KeyFile) },
		"key_credential": func(s section) {
			if s.Text(&b.KeyCredential); b.KeyCredential == "" || !validID(b.KeyCredential) {
				s.Fault("want the name of a credential, as in LoadCredentialEncrypted=NAME:PATH")
			}
		},
		"ca":      func(s section) { path(s, &b.CA) },
		"key":     inline,
		"api_key": inline,
		"token":   inline,
	}
}

// path reads the path of a file, which may begin with ~/.
func path(s section, to *string) {
	s.Text(to)
	if rest, ok := strings.CutPrefix(*to, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			s.Fault("%v", err)
			return
		}
		*to = filepath.Join(home, rest)
	}
	if *to != "" && !filepath.IsAbs(*to) {
		s.Fault("want an absolute path, or one that begins with ~/, got %q", *to)
	}
}

// remote reads what is said of a backend that is not on this machine alone.
func remote(b *Backend) fields {
	return fields{
		"allow": func(s section) { allow(s, &b.Leave) },
		"when": func(s section) {
			s.OneOf((*string)(&b.Leave.When), string(job.WhenNamed), string(job.WhenNeeded), string(job.WhenCheaper))
		},
		"price": func(s section) { price(s, &b.Price) },
	}
}

// allow reads who may leave this machine. Both lists are wanted: who is not named
// stays.
func allow(s section, to *job.Leave) {
	s.Mapping(fields{
		"clients": func(s section) {
			s.List(func(s section) {
				var name string
				if s.Text(&name); name == "" {
					s.Fault(`want the name of a token, or of a program on the Unix socket or D-Bus, or "*" for all`)
				}
				to.Clients = append(to.Clients, name)
			})
		},
		"classes": func(s section) {
			s.List(func(s section) {
				var class string
				s.OneOf(&class, string(job.Interactive), string(job.Background))
				to.Classes = append(to.Classes, job.Class(class))
			})
		},
	})
	if len(to.Clients) == 0 || len(to.Classes) == 0 {
		s.Fault("want both clients and classes; who is not named may not leave this machine")
	}
}

// mostPrice is per million tokens.
const mostPrice = 1_000_000

func price(s section, to *job.Price) {
	s.Mapping(fields{
		"per_million_input":  func(s section) { s.Number(&to.Input, 0, mostPrice) },
		"per_million_output": func(s section) { s.Number(&to.Output, 0, mostPrice) },
		"currency":           func(s section) { currency(s, &to.Currency) },
	})
	if to.Currency == "" {
		s.Fault("want a currency, such as EUR")
	}
}

// elsewhere checks what takes more than one value of a backend to see: where it is,
// against what is said of it. The endpoint is nil if there is none.
func (p *parser) elsewhere(s section, b *Backend, endpoint section, said map[string]section) {
	if b.KeyFile != "" && b.KeyCredential != "" {
		said["key_credential"].Fault("there is a key_file, too; want one of them")
	}
	keyed := b.KeyFile != "" || b.KeyCredential != ""
	where := reach(b)
	plain := endpoint.There() && b.Endpoint.Scheme == "http" && where == internet
	switch {
	case b.Hardware == power.Cloud && plain:
		endpoint.Fault("want https: without encryption there is only the way to this machine and to a private network")
	case keyed && plain:
		endpoint.Fault("want https: a key is not sent in the clear but to this machine and to a private network")
	case b.CA != "" && b.Endpoint.Scheme != "https":
		said["ca"].Fault("there is no certificate to check without https")
	}
	if b.Hardware != power.Cloud {
		for _, key := range []string{"allow", "when", "price"} {
			if at, ok := said[key]; ok {
				at.Fault("only a backend of hardware: cloud has this")
			}
		}
		switch where {
		case internet:
			endpoint.Fault("%s is not on this machine: want hardware: cloud, and in allow who may leave for it", b.Endpoint.Hostname())
		case network:
			if b.Endpoint.Scheme != "unix" {
				if _, err := netip.ParseAddr(b.Endpoint.Hostname()); err == nil {
					p.note(endpoint, "taken for this machine's, as in a container: with hardware: cloud only those jobs leave for it that may")
				}
			}
		case machine:
		}
		return
	}
	if len(b.Models) == 0 {
		s.Fault("a remote backend needs models, with your name for each: no prompt leaves because a model here has the same name")
	}
	if len(b.Leave.Clients) == 0 {
		p.note(s, "nobody may leave this machine for it until allow names clients and classes")
	}
	if b.Leave.When == "" {
		b.Leave.When = job.WhenNamed
	}
}

// where a server is, as far as its address tells.
type where int

const (
	machine where = iota
	network       // the user's own
	internet
)

// own are the ends of names that nobody resolves for the whole world: those of
// multicast DNS (RFC 6762), of homes (RFC 8375), of private use (ICANN, 2024), and
// what routers have always used.
var own = []string{".local", ".home.arpa", ".internal", ".lan", ".home", ".localdomain"}

func reach(b *Backend) where {
	host := strings.ToLower(strings.TrimSuffix(b.Endpoint.Hostname(), "."))
	if b.Endpoint.Scheme == "unix" || host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return machine
	}
	if a, err := netip.ParseAddr(host); err == nil {
		switch {
		case a.Unmap().IsLoopback():
			return machine
		case job.Private(a):
			return network
		default:
			return internet
		}
	}
	if !strings.Contains(host, ".") {
		return network
	}
	for _, end := range own {
		if strings.HasSuffix(host, end) {
			return network
		}
	}
	return internet
}
