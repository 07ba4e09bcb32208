package registry_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/joulemux/joulemux/daemon/backend"
	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/registry"
	"github.com/joulemux/joulemux/power"
)

// fixed are backends that do not change.
type fixed backend.Snapshot

func (f fixed) Look(context.Context) backend.Snapshot { return backend.Snapshot(f) }

func has(id string, class power.DeviceClass, models ...job.Model) backend.Backend {
	return backend.Backend{ID: id, Class: class, Healthy: true, Facts: job.Facts{Models: models}}
}

func TestAModelIsThereOnce(t *testing.T) {
	t.Parallel()
	until := time.Unix(1000, 0)
	down := has("down", power.CPU, job.Model{Name: "gone", Digest: "9"})
	down.Healthy = false
	r := registry.New(registry.Parts{Backends: fixed{
		has("cpu", power.CPU, job.Model{Name: "b", Digest: "1", Size: 7}, job.Model{Name: "same", Digest: "2"}),
		has("npu", power.NPU,
			job.Model{Name: "B:latest", Digest: "1", Resident: true, Until: until, VRAM: -1},
			job.Model{Name: "alias", Digest: "1", VRAM: -1},
			job.Model{Name: "same", Digest: "3", Description: job.Description{Parameters: "1B"}}),
		down,
	}})
	got := r.List(t.Context())
	names := [][]string{}
	for _, m := range got {
		names = append(names, m.Names)
	}
	if want := [][]string{{"b", "alias"}, {"same"}, {"same"}}; !reflect.DeepEqual(names, want) {
		t.Fatalf("listed are %v, want %v", names, want)
	}
	if want := []registry.Place{{Backend: "cpu", Name: "b"}, {Backend: "npu", Name: "B:latest", Resident: true, Until: until}, {Backend: "npu", Name: "alias"}}; !slices.Equal(got[0].Places, want) {
		t.Errorf("it is at %+v, want %+v", got[0].Places, want)
	}
	if got[2].Parameters != "1B" || got[1].Parameters != "" {
		t.Errorf("what one server tells is of that one: %+v", got)
	}
}

func TestServersAreAskedOnceForTheSameWeights(t *testing.T) {
	t.Parallel()
	asked, fails := []string{}, true
	backends := fixed{has("cpu", power.CPU, job.Model{Name: "a", Digest: "1"}), has("npu", power.NPU, job.Model{Name: "b", Digest: "1"})}
	r := registry.New(registry.Parts{Backends: &backends, Describe: func(_ context.Context, b backend.Backend, model string) (job.Description, error) {
		asked = append(asked, b.ID+" "+model)
		if fails {
			return job.Description{}, errors.New("not now")
		}
		return job.Description{Context: 2048, Abilities: []string{"tools"}}, nil
	}})
	r.List(t.Context())
	fails = false
	for range 3 {
		if got := r.List(t.Context()); len(got) != 1 || got[0].Context != 2048 || !slices.Equal(got[0].Abilities, []string{"tools"}) {
			t.Errorf("listed is %+v", got)
		}
	}
	if want := []string{"cpu a", "cpu a"}; !slices.Equal(asked, want) {
		t.Errorf("asked were %q, want %q", asked, want)
	}
	backends = fixed{has("cpu", power.CPU)}
	r.List(t.Context())
	backends = fixed{has("cpu", power.CPU, job.Model{Name: "a", Digest: "1"})}
	if r.List(t.Context()); len(asked) != 3 {
		t.Error("what is known of a model outlives it")
	}
}

func TestAServerThatDoesNotAnswerHoldsNobodyUpForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(registry.Parts{
			Backends: fixed{has("cpu", power.CPU, job.Model{Name: "a", Digest: "1"}, job.Model{Name: "b", Digest: "2"})},
			Describe: func(ctx context.Context, _ backend.Backend, _ string) (job.Description, error) {
				<-ctx.Done()
				return job.Description{}, ctx.Err()
			},
		})
		began := time.Now()
		if got := r.List(t.Context()); len(got) != 2 || time.Since(began) != time.Second {
			t.Errorf("%d after %v", len(got), time.Since(began))
		}
	})
}

func TestWhereAModelFits(t *testing.T) {
	t.Parallel()
	const gb = 1_000_000_000
	model := func(m job.Model) job.Model {
		m.Name, m.Digest, m.Size = "m", "1", 4*gb
		return m
	}
	for name, tt := range map[string]struct {
		there  []job.Model // on the backend in question
		class  power.DeviceClass
		memory registry.Memory
		size   int64
		want   registry.Verdict
		says   string
	}{
		"enough":                    {memory: registry.Memory{Bytes: 8 * gb}, want: registry.Fitting, says: "4.8 GB of 8.0 GB"},
		"too little":                {memory: registry.Memory{Bytes: 4 * gb}, want: registry.TooBig, says: "it needs some 4.8 GB, and there are 4.0 GB"},
		"nobody knows, and why":     {memory: registry.Memory{Unknown: "it sleeps"}, want: registry.Unknown, says: "it sleeps"},
		"nobody knows":              {want: registry.Unknown, says: "nobody tells how much memory there is"},
		"a size that is not told":   {memory: registry.Memory{Bytes: 8 * gb}, size: -1, want: registry.Unknown, says: "nobody tells how large it is"},
		"loaded":                    {there: []job.Model{model(job.Model{Resident: true, VRAM: 5 * gb})}, class: power.NVIDIA, memory: registry.Memory{Bytes: gb}, want: registry.Fitting, says: "it is loaded there"},
		"loaded by a silent server": {there: []job.Model{model(job.Model{Resident: true, VRAM: -1})}, class: power.NPU, want: registry.Fitting, says: "it is loaded there"},
		"loaded on a CPU":           {there: []job.Model{model(job.Model{Resident: true})}, class: power.CPU, want: registry.Fitting, says: "it is loaded there"},
		"loaded beside the device":  {there: []job.Model{model(job.Model{Resident: true})}, class: power.NVIDIA, memory: registry.Memory{Unknown: "it sleeps"}, want: registry.Unknown, says: "it sleeps"},
		"loaded in part":            {there: []job.Model{model(job.Model{Resident: true, VRAM: 3 * gb})}, class: power.NVIDIA, memory: registry.Memory{Bytes: 80 * gb}, want: registry.TooBig, says: "only 3.0 GB of it are in the device's memory"},
		"larger ones are loaded":    {there: []job.Model{{Name: "l", Digest: "2", Resident: true, VRAM: 5 * gb}}, class: power.NVIDIA, want: registry.Fitting, says: "larger ones are loaded there"},
	} {
		first := has("first", power.CPU, model(job.Model{}))
		if tt.size < 0 {
			first.Facts.Models[0].Size = 0
		}
		r := registry.New(registry.Parts{
			Backends: fixed{first, has("second", tt.class, tt.there...)},
			Memory:   func(backend.Backend) registry.Memory { return tt.memory },
		})
		all := r.List(t.Context())
		i := slices.IndexFunc(all, func(m registry.Model) bool { return m.Digest == "1" })
		if got, want := all[i].Fits[1], (registry.Fit{Backend: "second", Verdict: tt.want, Reason: tt.says}); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}
