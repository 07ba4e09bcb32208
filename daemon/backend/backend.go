// Package backend knows which backends exist, whether they are healthy, and
// what models they hold.
//
// Health is learned from use and from failure, and asked for only when a job
// wants a backend or somebody looks: at rest nothing runs here. How to talk to
// a server is that of daemon/backend/ollama and its like; which backend is the
// best for a job is daemon/route's.
package backend

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Spec is a backend as it is configured, or as it is looked for.
type Spec struct {
	// ID names the backend; "" names it after its class, once that is known.
	ID   string
	Name string // for people
	Type string // what program it is, such as "ollama"; "auto" has it found out
	// Class is Unclassified if it has to be found out.
	Class    power.DeviceClass
	Endpoint url.URL
	// Profile holds what the user knows better; zero fields are the class's.
	Profile  job.Profile
	Priority int
	// Slots is on how many jobs the server works at once; zero leaves it to what
	// the server says of itself.
	Slots int
	// Memory is how much its device has, in bytes; zero leaves it to be found out.
	Memory int64
	// Models are what the server calls models, by the names that clients have for
	// them. Those that it has beside them go by its own.
	Models map[string]string
	// KeyFile and KeyCredential say where the key is that the server wants, and CA
	// where the certificates are that its own is signed by; "" is nowhere.
	KeyFile, KeyCredential, CA string
	// Leave is which jobs may leave this machine for a remote server, and Price
	// what it charges.
	Leave job.Leave
	Price job.Price
	// Found specs are places where a server may or may not be: unless one
	// answers there, there is no such backend.
	Found bool
}

// Server is how to talk to a backend. *ollama.Server is one.
type Server interface {
	Streamer
	// Probe asks what the server is and has.
	Probe(ctx context.Context) (job.Facts, error)
	// Do sends a request that is no job.
	Do(req *http.Request) (*http.Response, error)
	Close()
}

// Streamer runs jobs on one backend.
type Streamer interface {
	// Stream runs a job, calling begin once and emit for each piece of the
	// answer. It returns when the job ends, ctx is done, or one of them fails.
	Stream(ctx context.Context, j job.Job, begin func(job.Head) error, emit func(job.Chunk) error) error
	// Ping asks for a sign of life on a fresh connection.
	Ping(ctx context.Context) error
}

// An Unloader is a Server that can be told to let go of a model. One that
// cannot does not implement it.
type Unloader interface {
	Unload(ctx context.Context, model string) error
}

// Backend is an immutable view of one backend.
type Backend struct {
	Spec
	// ID and Class are as configured, or as found out.
	ID    string
	Class power.DeviceClass
	// Healthy backends answered last time. Problem says why another did not.
	Healthy bool
	Problem string
	// Suspect says why jobs failed here lately although the server answers.
	Suspect string
	// RetryAt is when a job may be taken again that is refused now, although
	// the server answers; zero if none is.
	RetryAt time.Time
	// Vetoed says why the device may be given no work now, if it may not.
	Vetoed string
	// Asleep tells that the device sleeps until a job needs it. What is known here
	// says nothing of that; who knows marks a copy.
	Asleep bool
	// Checked is when the server was last asked.
	Checked time.Time
	Facts   job.Facts
	// Profile is complete: configured figures over the priors of the class.
	Profile job.Profile

	server Server
	// former are the ids that it had before, under which jobs may be running.
	former []string
}

// Server returns how to talk to the backend.
func (b *Backend) Server() Server { return b.server }

// Program names the program that the server is: as it was found out, or else as
// it is configured.
func (b *Backend) Program() string {
	if name, _, _ := strings.Cut(b.Facts.Server, " "); name != "" {
		return name
	}
	return b.Spec.Type
}

// Model returns the model of that name, in any spelling, or nil.
func (b *Backend) Model(name string) *job.Model {
	for i := range b.Facts.Models {
		if job.SameModel(b.Facts.Models[i].Name, name) {
			return &b.Facts.Models[i]
		}
	}
	return nil
}

// Holds reports whether the server says that it holds a model.
func (b *Backend) Holds() bool {
	return slices.ContainsFunc(b.Facts.Models, func(m job.Model) bool { return m.Resident })
}

// MaxContext returns how many tokens of context the loaded model has that has the
// most; zero is not known.
func (b *Backend) MaxContext() (most int) {
	for _, m := range b.Facts.Models {
		most = max(most, m.ContextLength)
	}
	return most
}

// Candidate returns the backend as it looks to a job for that model.
func (b *Backend) Candidate(model string) job.Candidate {
	c := job.Candidate{
		ID: b.ID, Class: b.Class, Aliases: b.aliases(),
		Healthy: b.Healthy, Problem: b.Problem, Suspect: b.Suspect, Vetoed: b.Vetoed,
		Priority: b.Priority, Slots: b.slots(), Model: b.Model(model), Profile: b.Profile,
	}
	if b.Class == power.Cloud {
		c.Leave = &b.Leave
	}
	if wait := time.Until(b.RetryAt); !b.RetryAt.IsZero() && wait > 0 {
		c.RetryAfter = wait
		c.Problem += fmt.Sprintf(", tried again in %d s", job.WholeSeconds(wait))
	}
	return c
}

// slots returns on how many jobs the backend works at once: as configured, as it
// says, or one, which is what Ollama does by default and does not tell.
func (b *Backend) slots() int {
	if b.Class == power.Cloud {
		return cmp.Or(b.Spec.Slots, remoteSlots)
	}
	return cmp.Or(b.Spec.Slots, b.Facts.Slots, 1)
}

// aliases returns the other names of a backend whose id may change when its
// class is found out.
func (b *Backend) aliases() []string {
	if b.Spec.ID != "" {
		return nil
	}
	return []string{portID(b.Spec)}
}

// portID names a backend after its port.
func portID(s Spec) string {
	if port := s.Endpoint.Port(); port != "" {
		return s.Type + "-" + port
	}
	return s.Type
}

// Snapshot is all backends at one moment, in the order of their specs.
type Snapshot []Backend

// Find returns the backend with that id or alias, or else the one that had it
// when somebody decided on it; or nil.
func (s Snapshot) Find(id string) *Backend {
	for _, is := range []func(*Backend) bool{
		func(b *Backend) bool { return b.ID == id },
		func(b *Backend) bool { return slices.Contains(b.aliases(), id) },
		func(b *Backend) bool { return slices.Contains(b.former, id) },
	} {
		for i := range s {
			if is(&s[i]) {
				return &s[i]
			}
		}
	}
	return nil
}

// Candidates returns every backend as it looks to a job for that model.
func (s Snapshot) Candidates(model string) []job.Candidate {
	list := make([]job.Candidate, len(s))
	for i := range s {
		list[i] = s[i].Candidate(model)
	}
	return list
}

// Models returns the names of the models that healthy backends have, each
// once, in the order in which they are found, those of this machine first.
func (s Snapshot) Models() []string {
	var names []string
	seen := make(map[string]bool)
	for _, remote := range []bool{false, true} {
		for _, b := range s {
			for _, m := range b.Facts.Models {
				if name := job.CanonicalModel(m.Name); b.Healthy && b.Remote() == remote && !seen[name] {
					seen[name] = true
					names = append(names, m.Name)
				}
			}
		}
	}
	return names
}
