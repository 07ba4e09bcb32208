package config

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/joulemux/joulemux/power"
)

func (p *parser) backends(s section) {
	p.configured = make(map[string]section)
	s.List(p.backend)
}

func (p *parser) backend(s section) {
	b := Backend{Type: "auto"}
	enabled, endpoint := true, section{}
	said := make(map[string]section)
	known := fields{
		"id":              func(s section) { s.Text(&b.ID) },
		"name":            func(s section) { s.Text(&b.Name) },
		"type":            func(s section) { s.OneOf(&b.Type, types...) },
		"hardware":        func(s section) { hardware(s, &b.Hardware) },
		"enabled":         func(s section) { s.Flag(&enabled) },
		"endpoint":        func(s section) { endpoint = s; parseEndpoint(s, &b.Endpoint) },
		"models":          func(s section) { aliases(s, &b.Models) },
		"slots":           func(s section) { s.Integer(&b.Slots, 1, mostSlots) },
		"characteristics": func(s section) { characteristics(s, &b) },
	}
	for _, more := range []fields{access(&b), remote(&b)} {
		for key, read := range more {
			known[key] = func(s section) { said[key] = s; read(s) }
		}
	}
	s.Mapping(known)
	if first, twice := p.configured[b.ID]; twice && b.ID != "" {
		s.Fault("the id %q is taken by the backend on line %d", b.ID, first.Line())
	}
	p.configured[b.ID] = s
	switch {
	case b.ID == "":
		s.Fault("a backend needs an id")
	case !validID(b.ID):
		s.Fault("the id %q has other characters than letters, digits, '-', '_' and '.'", b.ID)
	}
	if !enabled {
		return
	}
	if !endpoint.There() {
		s.Fault("a backend needs an endpoint, such as http://127.0.0.1:11434")
	}
	if path := b.Endpoint.Path; path != "" && b.Endpoint.Scheme != "unix" && (b.Type == "ollama" || b.Type == "fastflowlm") {
		endpoint.Fault("Ollama's API has no path before it, such as %q", path)
	}
	if b.Hardware == "" {
		b.Hardware = power.Unclassified
	}
	p.elsewhere(s, &b, endpoint, said)
	p.Backends = append(p.Backends, b)
}

// types are the programs that a server may be said to be: "auto" has it found
// out, and "openai" is any of OpenAI's API.
var types = []string{"auto", "ollama", "fastflowlm", "openai", "llama-server", "vllm", "ovms", "lemonade"}

// aliases reads what a server calls models, by the names that clients have for
// them.
func aliases(s section, to *map[string]string) {
	*to = make(map[string]string)
	s.Pairs(func(name string, s section) {
		var theirs string
		s.Text(&theirs)
		if name == "" || theirs == "" {
			s.Fault("want the client's name of a model, and the server's")
		}
		(*to)[name] = theirs
	})
}

// mostSlots is on how many jobs a server may be said to work at once: far more
// than any on one machine does.
const mostSlots = 1024

// validID reports whether an id can stand in headers, paths and on a shell's
// command line.
func validID(id string) bool {
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return true
}

func hardware(s section, to *power.DeviceClass) {
	var word string
	s.Text(&word)
	class, err := power.ParseDeviceClass(word)
	if err != nil {
		s.Fault("%v", err)
	}
	*to = class
}

func parseEndpoint(s section, to *url.URL) {
	var text string
	s.Text(&text)
	u, err := url.Parse(text)
	if err != nil {
		if broken := (*url.Error)(nil); errors.As(err, &broken) {
			err = broken.Err // without the text, in which there may be a key
		}
		s.Fault("want http://HOST:PORT, https://HOST:PORT or unix:///PATH: %v", err)
		return
	}
	plain := u.User == nil && u.RawQuery == "" && u.Fragment == "" // there is no use for these
	port, err := strconv.Atoi(u.Port())
	switch {
	case u.Scheme == "unix" && u.Path != "" && u.Host == "" && plain:
		*to = *u
	case u.Port() != "" && (err != nil || port < 1 || port > 65535):
		s.Fault("port %s is none from 1 to 65535", u.Port())
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && plain:
		*to = url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	case !plain && u.Host != "":
		// What somebody has put there may be a key.
		s.Fault("want no more than a host, port and path, as in %s", (&url.URL{Scheme: u.Scheme, Host: u.Host}).String())
	default:
		s.Fault("want http://HOST:PORT, https://HOST:PORT or unix:///PATH, got %q", u.Redacted())
	}
}

func characteristics(s section, b *Backend) {
	var watts, milliseconds, hold, memory float64
	s.Mapping(fields{
		"power_watts":           func(s section) { s.Number(&watts, 0, 10_000) },
		"avg_latency_ms":        func(s section) { s.Number(&milliseconds, 0, 1e7) },
		"max_tokens_per_second": func(s section) { s.Number(&b.TokensPerSec, 0, 1e6) },
		"hold_watts":            func(s section) { s.Number(&hold, leastHold, 1000) },
		"memory_gib":            func(s section) { s.Number(&memory, 0.1, 65536) },
		"priority":              func(s section) { s.Integer(&b.Priority, -1_000_000, 1_000_000) },
	})
	b.Power = power.Watts(watts)
	b.Latency = time.Duration(milliseconds * float64(time.Millisecond))
	b.Hold = power.Watts(hold)
	b.Memory = int64(memory * (1 << 30))
}

// leastHold is in watts. Zero would say that it is not known.
const leastHold = 0.1
