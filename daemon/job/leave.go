package job

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/joulemux/joulemux/power"
)

// When says when a job that may leave this machine does.
type When string

// The rules for leaving.
const (
	WhenNamed   When = "named"   // if the job names the backend, or its class
	WhenNeeded  When = "needed"  // also if no backend of this machine has it in time
	WhenCheaper When = "cheaper" // also if that takes fewer joules here, as between any two
)

// Leave is which jobs may leave this machine for a remote backend. Who is not
// named stays, so the zero value keeps all.
type Leave struct {
	When When
	// Clients are names, or Anybody. A client that nobody vouches for is none of
	// them, whatever it calls itself. Classes are those of jobs.
	Clients []string
	Classes []Class
}

// Anybody stands for every client.
const Anybody = "*"

// keeps says why j may not leave, whatever it asks for, or "".
func (l *Leave) keeps(j *Job) string {
	class := j.Class
	if class == "" {
		class = Interactive
	}
	switch {
	case l == nil, len(l.Clients) == 0, len(l.Classes) == 0:
		return "nobody is allowed to"
	case !slices.Contains(l.Clients, Anybody) && !(j.Vouched && slices.Contains(l.Clients, j.Client)):
		switch {
		case j.Client == "":
			return "a client without a name is not allowed to"
		case slices.Contains(l.Clients, j.Client):
			return fmt.Sprintf("it is only the client that calls itself %q; have it show a token of that name, or come by the Unix socket", short(j.Client))
		}
		return fmt.Sprintf("the client %q is not allowed to", short(j.Client))
	case !slices.Contains(l.Classes, class):
		return strings.ToLower(string(class)) + " jobs are not allowed to"
	default:
		return ""
	}
}

// Kept says why j may not leave this machine for c, or "": of a backend that is
// here, too. Named tells that j names c.
//
// Vectors from elsewhere are of no use beside those of this machine, and of an
// embedding nobody sees where it comes from: so those leave only by name.
func (c *Candidate) Kept(j *Job, named bool) string {
	if c.Class != power.Cloud {
		return ""
	}
	switch why := c.Leave.keeps(j); {
	case why != "":
		return "may not leave this machine: " + why
	case named:
		return ""
	case j.Kind == Embed:
		return "may not leave this machine: embeddings do only for the target that names it"
	case c.Leave.When == WhenNeeded, c.Leave.When == WhenCheaper:
		return ""
	default:
		return "may not leave this machine: jobs do only for the target that names it"
	}
}

// Private reports whether an address is of this machine, or of a network that is
// nobody's but its owner's.
func Private(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

// shared is where carriers and overlay networks number their own (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")
