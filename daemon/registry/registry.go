// Package registry is the one list of the models that there are, over all
// backends: what each is, who has it, where it is loaded, and where it fits.
//
// What a server tells of a model only when it is asked for that one is asked for
// when somebody lists, once for the same weights, and kept.
package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/power"
)

// Backends tells which backends there are. *backend.Set does.
type Backends interface {
	Look(ctx context.Context) backend.Snapshot
}

// Memory is how much a backend's device has, in bytes, or why nobody knows.
type Memory struct {
	Bytes   int64
	Unknown string
}

// Parts is what the list is made of.
type Parts struct {
	Backends Backends
	// Describe asks a backend about a model. It may know no more than before.
	Describe func(ctx context.Context, b backend.Backend, model string) (job.Description, error)
	// Memory tells how much a backend's device has.
	Memory func(b backend.Backend) Memory
}

// Registry lists models.
type Registry struct {
	Parts
	mu    sync.Mutex
	known map[string]job.Description // by digest
}

// New returns a registry. It asks nobody.
func New(p Parts) *Registry { return &Registry{Parts: p, known: make(map[string]job.Description)} }

// Model is one with certain weights.
type Model struct {
	// Names are those that it has with one backend or another, the first backend's
	// first.
	Names  []string
	Digest string
	Size   int64 // in bytes; zero is not told
	job.Description
	// Places are the backends that have it.
	Places []Place
	// Fits tells of every backend whether it would fit there.
	Fits []Fit
}

// Backends returns the backends that have the model, each once, and those where it
// is loaded.
func (m Model) Backends() (all, resident []string) {
	all, resident = []string{}, []string{}
	for _, p := range m.Places {
		if !slices.Contains(all, p.Backend) {
			all = append(all, p.Backend)
		}
		if p.Resident && !slices.Contains(resident, p.Backend) {
			resident = append(resident, p.Backend)
		}
	}
	return all, resident
}

// Place is a model on a backend.
type Place struct {
	Backend, Name string
	Resident      bool
	// Until is when it goes unless a job comes; zero is not told.
	Until time.Time
}

// Fit is whether a model fits a device's memory.
type Fit struct {
	Backend string
	Verdict Verdict
	Reason  string
}

// Verdict is whether something fits.
type Verdict string

// The verdicts.
const (
	Fitting Verdict = "fits"
	TooBig  Verdict = "does not fit"
	Unknown Verdict = "unknown"
)

// describePatience is how long all the asking about models may take.
const describePatience = time.Second

// List returns the models of all backends that answer, by their first names.
func (r *Registry) List(ctx context.Context) []Model {
	backends := r.Backends.Look(ctx)
	backends = slices.DeleteFunc(slices.Clone(backends), func(b backend.Backend) bool { return !b.Healthy })
	r.describe(ctx, backends)
	var list []*Model
	at := make(map[string]*Model)
	for _, b := range backends {
		for _, m := range b.Facts.Models {
			key := cmp.Or(m.Digest, strings.ToLower(job.CanonicalModel(m.Name)))
			if at[key] == nil {
				at[key] = &Model{Digest: m.Digest, Size: m.Size, Description: m.Description}
				list = append(list, at[key])
			}
			at[key].place(b, m)
		}
	}
	all := make([]Model, 0, len(list))
	for _, m := range list {
		told, _ := r.lookup(m.Digest)
		m.Description = m.Over(told)
		for _, b := range backends {
			m.Fits = append(m.Fits, fit(*m, b, r.Memory))
		}
		all = append(all, *m)
	}
	slices.SortStableFunc(all, func(a, b Model) int { return cmp.Compare(a.Names[0], b.Names[0]) })
	return all
}

// place adds a backend that has the model.
func (m *Model) place(b backend.Backend, there job.Model) {
	if !slices.ContainsFunc(m.Names, func(name string) bool { return job.SameModel(name, there.Name) }) {
		m.Names = append(m.Names, there.Name)
	}
	m.Description = m.Over(there.Description)
	m.Size = cmp.Or(m.Size, there.Size)
	m.Places = append(m.Places, Place{Backend: b.ID, Name: there.Name, Resident: there.Resident, Until: there.Until})
}

// describe asks about models of which nobody has asked yet, and forgets those
// that are gone.
func (r *Registry) describe(ctx context.Context, backends backend.Snapshot) {
	if r.Describe == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, describePatience)
	defer cancel()
	here := make(map[string]bool)
	var asking sync.WaitGroup
	for _, b := range backends {
		var asked []job.Model
		for _, m := range b.Facts.Models {
			if m.Digest != "" && !here[m.Digest] {
				here[m.Digest] = true
				if _, known := r.lookup(m.Digest); !known {
					asked = append(asked, m)
				}
			}
		}
		asking.Go(func() { // one after the other: a server reads a file for each
			for _, m := range asked {
				if d, err := r.Describe(ctx, b, m.Name); err == nil {
					r.keep(m.Digest, d)
				}
			}
		})
	}
	asking.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for digest := range r.known {
		if !here[digest] {
			delete(r.known, digest)
		}
	}
}

func (r *Registry) lookup(digest string) (job.Description, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, known := r.known[digest]
	return d, known
}

func (r *Registry) keep(digest string, d job.Description) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[digest] = d
}

// overhead is what a model takes beside its weights, for its context above all,
// as a part of them (assumed).
const overhead = 0.2

// fit tells whether a model fits a backend's device: if it is loaded there, by how
// that turned out.
func fit(m Model, b backend.Backend, memory func(backend.Backend) Memory) Fit {
	f := Fit{Backend: b.ID, Verdict: Unknown}
	need := int64(float64(m.Size) * (1 + overhead))
	seen := int64(0) // in the memory of the device at the same time
	for _, there := range b.Facts.Models {
		seen += max(0, there.VRAM)
		// What an Ollama has in the processor's memory tells nothing of another device.
		elsewhere := there.VRAM == 0 && b.Class != power.CPU
		if there.Resident && there.Digest == m.Digest && m.Digest != "" && !elsewhere {
			return loaded(f, b.Class, there)
		}
	}
	var has Memory
	if memory != nil {
		has = memory(b)
	}
	switch {
	case m.Size <= 0:
		f.Reason = "nobody tells how large it is"
	case has.Bytes > 0 && need <= has.Bytes:
		f.Verdict, f.Reason = Fitting, fmt.Sprintf("%s of %s", inGB(need), inGB(has.Bytes))
	case has.Bytes > 0:
		f.Verdict, f.Reason = TooBig, fmt.Sprintf("it needs some %s, and there are %s", inGB(need), inGB(has.Bytes))
	case need <= seen:
		f.Verdict, f.Reason = Fitting, "larger ones are loaded there"
	default:
		f.Reason = cmp.Or(has.Unknown, "nobody tells how much memory there is")
	}
	return f
}

// loaded is for a model that is loaded: a GPU may have taken only a part of it.
func loaded(f Fit, class power.DeviceClass, m job.Model) Fit {
	f.Verdict, f.Reason = Fitting, "it is loaded there"
	if class != power.CPU && m.VRAM >= 0 && m.Size > 0 && m.VRAM < m.Size/10*9 {
		f.Verdict = TooBig
		f.Reason = fmt.Sprintf("only %s of it are in the device's memory", inGB(m.VRAM))
	}
	return f
}

func inGB(bytes int64) string { return fmt.Sprintf("%.1f GB", float64(bytes)/1e9) }
