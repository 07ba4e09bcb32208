package dbus

import (
	"context"
	"errors"
	"strings"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"github.com/joulemux/joulemux/daemon/job"
	"github.com/joulemux/joulemux/daemon/pull"
	"github.com/joulemux/joulemux/dbus/dbustest"
)

// store has a model that is fetched half, and then waits for what becomes of it.
type store struct {
	begun chan pull.Order // each that began
	ends  chan error
	gone  chan struct{}
}

func newStore() store {
	return store{begun: make(chan pull.Order, 16), ends: make(chan error), gone: make(chan struct{}, 16)}
}

func (s *store) Pull(ctx context.Context, o pull.Order, each func(pull.Step)) error {
	each(pull.Step{Status: "pulling layer", Digest: "sha256:1", Total: 1000, Completed: 500})
	s.begun <- o
	select {
	case err := <-s.ends:
		if err == nil {
			each(pull.Step{Status: "pulling layer", Digest: "sha256:1", Total: 1000, Completed: 1000})
		}
		return err
	case <-ctx.Done():
		s.gone <- struct{}{}
		return ctx.Err()
	}
}

func pullBy(p *dbustest.Peer, model string, options map[string]any) *godbus.Call {
	all := make(map[string]godbus.Variant)
	for key, v := range options {
		all[key] = godbus.MakeVariant(v)
	}
	return routerOf(p).Go(RouterName+".Pull", 0, make(chan *godbus.Call, 1), model, all)
}

func pullsOf(t *testing.T, p *dbustest.Peer) (list []map[string]godbus.Variant) {
	t.Helper()
	v, err := routerOf(p).GetProperty(RouterName + ".Pulls")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Store(&list); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPullReturnsWhenTheModelIsThere(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := r.bus.Connect(t)
	call := pullBy(p, "tiny", map[string]any{"backend": "ollama-igpu", "anyway": true, "insecure": true})
	if o := receive(t, r.store.begun); o != (pull.Order{Backend: "ollama-igpu", Model: "tiny", Anyway: true, Insecure: true}) {
		t.Errorf("asked for %+v", o)
	}
	dbustest.Eventually(t, "the pull is in Pulls", func() bool { return len(pullsOf(t, p)) == 1 })
	got := pullsOf(t, p)[0]
	for key, want := range map[string]any{
		"model": "tiny", "backend": "ollama-igpu", "state": "pulling", "completed": uint64(500), "total": uint64(1000),
		"rate": 0.0, "seconds_left": 0.0, "note": "", "network": "",
	} {
		if got[key].Value() != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	r.store.ends <- nil
	var result map[string]godbus.Variant
	if err := receive(t, call.Done).Store(&result); err != nil || result["backend"].Value() != "ollama-igpu" || result["bytes"].Value() != uint64(1000) {
		t.Errorf("got %v, %v", result, err)
	}
	dbustest.Eventually(t, "no pull is left", func() bool { return len(pullsOf(t, p)) == 0 })
}

// TestWhoMayOnlyAskForAnswersPullsNothing: a sandboxed program that may talk to
// Inference1 may talk to all that is on its connection.
func TestWhoMayOnlyAskForAnswersPullsNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p := r.bus.Connect(t)
	for _, path := range []godbus.ObjectPath{routerPath, inferencePath} {
		obj := p.Object(InferenceName, path)
		for _, call := range []*godbus.Call{
			obj.Call(RouterName+".Pull", 0, "tiny", map[string]godbus.Variant{}),
			obj.Call(RouterName+".CancelPull", 0, "tiny"),
			obj.Call("org.freedesktop.DBus.Properties.Get", 0, RouterName, "Pulls"),
			obj.Call("org.freedesktop.DBus.Properties.Set", 0, RouterName, "Policy", godbus.MakeVariant("saver")),
		} {
			if call.Err == nil {
				t.Errorf("%s at %s: %v", call.Method, path, call.Body)
			}
		}
	}
	select {
	case o := <-r.store.begun:
		t.Errorf("%+v is fetched", o)
	default:
	}
}

func TestPullTellsHowItGetsOn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	p, other := r.bus.Connect(t), r.bus.Connect(t)
	signals := make(chan *godbus.Signal, 16)
	other.Signal(signals)
	if err := other.AddMatchSignal(godbus.WithMatchObjectPath(routerPath)); err != nil {
		t.Fatal(err)
	}
	pullBy(p, "tiny", nil)
	for s := receive(t, signals); ; s = receive(t, signals) {
		if !strings.HasSuffix(s.Name, ".PropertiesChanged") {
			continue // a backend may be new
		}
		changed, _ := s.Body[1].(map[string]godbus.Variant)
		if list, ok := changed["Pulls"].Value().([]map[string]godbus.Variant); ok && len(list) == 1 && list[0]["model"].Value() == "tiny" {
			return
		}
	}
}

func TestPullFailsAsItsCallerUnderstands(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		model   string
		options map[string]any
		err     error // of the source, if it is asked
		want    string
		says    string
	}{
		"no model":             {want: "org.freedesktop.DBus.Error.InvalidArgs", says: "name the model"},
		"an unknown option":    {model: "tiny", options: map[string]any{"sideways": true}, want: "org.freedesktop.DBus.Error.InvalidArgs", says: "no such option"},
		"a wrong type":         {model: "tiny", options: map[string]any{"anyway": "yes"}, want: "org.freedesktop.DBus.Error.InvalidArgs", says: "another type than"},
		"an unknown backend":   {model: "tiny", options: map[string]any{"backend": "mars"}, want: "org.freedesktop.DBus.Error.InvalidArgs", says: "mars"},
		"no such model":        {model: "tiny", err: job.Errorf(job.ModelNotFound, "the registry has none"), want: "io.github.joulemux.Error.ModelNotFound", says: "has none"},
		"a registry that ends": {model: "tiny", err: job.Errorf(job.BackendFailed, "403"), want: "io.github.joulemux.Error.BackendFailed", says: "403, at 50 % of tiny"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			call := pullBy(r.bus.Connect(t), tt.model, tt.options)
			if tt.err != nil {
				receive(t, r.store.begun)
				r.store.ends <- tt.err
			}
			var got godbus.Error
			if err := receive(t, call.Done).Err; !errors.As(err, &got) || got.Name != tt.want || !strings.Contains(got.Error(), tt.says) {
				t.Errorf("got %v, want %s that says %q", err, tt.want, tt.says)
			}
		})
	}
}

func TestPullEndsWithItsCallerOrByHand(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	first := r.bus.Connect(t)
	pullBy(first, "tiny", nil)
	receive(t, r.store.begun)
	_ = first.Close()
	receive(t, r.store.gone)

	second := r.bus.Connect(t)
	call := pullBy(second, "tiny", nil)
	receive(t, r.store.begun)
	if err := routerOf(r.bus.Connect(t)).Call(RouterName+".CancelPull", 0, "tiny").Err; err != nil {
		t.Error(err)
	}
	var got godbus.Error
	if err := receive(t, call.Done).Err; !errors.As(err, &got) || got.Name != "io.github.joulemux.Error.Cancelled" {
		t.Errorf("got %v", err)
	}
	if err := routerOf(second).Call(RouterName+".CancelPull", 0, "tiny").Err; !errors.As(err, &got) || got.Name != "org.freedesktop.DBus.Error.InvalidArgs" {
		t.Errorf("a pull that is none: %v", err)
	}
}
