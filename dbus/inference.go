package dbus

import (
	"context"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/dbus/bus"
)

// patientFor is for how long a call may go without an answer, and so a job in one
// piece may run unless its caller says otherwise: callers stop waiting after 25
// seconds, and do not tell us.
const patientFor = 24 * time.Second

// inference is what is served on the connection for applications.
type inference struct {
	*FrontEnd
	conn     *godbus.Conn
	tree     *bus.Tree
	iface    *bus.Interface // Inference1
	callers  bus.Callers
	requests *requests
}

// inferenceState is the properties of Inference1.
type inferenceState struct {
	Version   string
	Available bool
}

func newInference(f *FrontEnd) (*inference, error) {
	i := &inference{FrontEnd: f}
	i.requests = newRequests(&i.callers, f.limits.jobs)
	var err error
	i.iface, err = implement(InferenceName+".xml", bus.Code{
		Methods: map[string]any{
			"Generate": i.generate, "GenerateTo": i.generateTo, "Embed": i.embed, "Explain": i.explain, "ListModels": i.listModels,
		},
		State: bus.StateOf(func(ctx context.Context, _ godbus.ObjectPath) (inferenceState, bool) {
			return f.view(f.Tiers.Look(ctx), f.Backends.Look(ctx)).inference, true
		}),
	})
	if err != nil {
		return nil, err
	}
	request, err := implement("io.github.joulemux.Request1.xml", bus.Code{Methods: map[string]any{"Cancel": i.requests.cancel}})
	if err != nil {
		return nil, err
	}
	i.tree, err = bus.NewTree(f.Log, errorOf, map[godbus.ObjectPath][]*bus.Interface{inferencePath: {i.iface}}, bus.Branch{
		Path: requestsPath, Interfaces: []*bus.Interface{request}, Names: i.requests.names,
	})
	return i, err
}

const requestsPath = inferencePath + "/request"

// generate is Inference1.Generate.
func (i *inference) generate(ctx context.Context, c bus.Call, prompt string, options map[string]godbus.Variant) (string, map[string]godbus.Variant, error) {
	if prompt == "" {
		return "", nil, errNoPrompt()
	}
	j, err := i.newJob(ctx, c, job.Generate, job.Content{Prompt: prompt}, options)
	if err != nil {
		return "", nil, err
	}
	a, err := i.whole(ctx, c, j)
	if err != nil {
		return "", nil, err
	}
	return bus.Text(a.text.String()), variants(a.fields()), nil
}

func errNoPrompt() error { return job.InvalidField("prompt", "is empty") }

// embed is Inference1.Embed.
func (i *inference) embed(ctx context.Context, c bus.Call, input []string, options map[string]godbus.Variant) ([][]float64, map[string]godbus.Variant, error) {
	if len(input) == 0 {
		return nil, nil, job.InvalidField("input", "there is none")
	}
	j, err := i.newJob(ctx, c, job.Embed, job.Content{Input: input}, options)
	if err != nil {
		return nil, nil, err
	}
	a, err := i.whole(ctx, c, j)
	if err != nil {
		return nil, nil, err
	}
	return a.vectors, variants(a.fields()), nil
}

// whole runs a job whose answer is wanted in one piece.
func (i *inference) whole(ctx context.Context, c bus.Call, j job.Job) (*answer, error) {
	if j.Deadline == 0 {
		j.Deadline = patientFor
	}
	ctx, r, err := i.requests.begin(ctx, c, "")
	if err != nil {
		return nil, err
	}
	defer r.end()
	a := &answer{limits: i.limits}
	return a, reason(ctx, i.Runner.Run(ctx, j, a))
}

// listModels is Inference1.ListModels.
func (i *inference) listModels(ctx context.Context, _ bus.Call) ([]map[string]godbus.Variant, error) {
	list := []map[string]godbus.Variant{}
	backends := i.Backends.Look(ctx)
	if len(backends) == 0 {
		if _, err := i.Runner.Prospect(i.Tiers.Current().Tier, backends); err != nil {
			return nil, err // nobody is there to ask, and this says why
		}
	}
	for _, m := range i.Models.List(ctx) {
		list = append(list, variants(describeModel(m)))
	}
	return list, nil
}

// describeModel returns a model for the bus.
func describeModel(m registry.Model) map[string]any {
	backends, resident := m.Backends()
	fits, fitsNot := []string{}, []string{}
	for _, f := range m.Fits {
		switch f.Verdict {
		case registry.Fitting:
			fits = append(fits, f.Backend)
		case registry.TooBig:
			fitsNot = append(fitsNot, f.Backend)
		case registry.Unknown:
		}
	}
	return map[string]any{
		"name": m.Names[0], "names": m.Names, "digest": m.Digest, "size": uint64(max(m.Size, 0)), "backends": backends, "resident": resident,
		"family": m.Family, "parameters": m.Parameters, "quantisation": m.Quantisation, "max_context": uint32(min(max(m.Context, 0), 1<<32-1)),
		"abilities": m.Abilities, "fits": fits, "fits_not": fitsNot,
	}
}
