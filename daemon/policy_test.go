package daemon_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/joulemux/joulemux/daemon/daemontest"
	"github.com/joulemux/joulemux/dbus"
)

func TestPolicyLasts(t *testing.T) {
	o := daemontest.Options{Config: oneBackend(t), State: filepath.Join(t.TempDir(), "joulemux")}
	d := daemontest.Start(t, o)
	if got := status(t, d).Policy; got != "auto" {
		t.Errorf("in the beginning it is %q", got)
	}
	object := router(d.Bus.Connect(t))
	if err := object.SetProperty(dbus.RouterName+".Policy", "saver"); err != nil {
		t.Fatal(err)
	}
	if err := object.SetProperty(dbus.RouterName+".Policy", "frugal"); err == nil {
		t.Error("a policy that there is not was taken")
	}
	if got := status(t, d); got.Policy != "saver" || got.Tier != "saver" {
		t.Errorf("policy %q gives tier %q", got.Policy, got.Tier)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	d = daemontest.Start(t, o)
	if got := status(t, d); got.Policy != "saver" || got.Tier != "saver" {
		t.Errorf("after a restart policy %q gives tier %q", got.Policy, got.Tier)
	}
}

func TestPolicyThatCannotBeReadIsAuto(t *testing.T) {
	state := t.TempDir()
	if err := os.WriteFile(filepath.Join(state, "policy"), []byte("\x00frugal"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := daemontest.Start(t, daemontest.Options{State: state})
	d.Await("the policy that was kept cannot be read")
	if got := status(t, d).Policy; got != "auto" {
		t.Errorf("it is %q", got)
	}
}

// Of a file that cannot be read nothing is said but that.
func TestPolicyWhoseFileCannotBeRead(t *testing.T) {
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "policy"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := daemontest.Start(t, daemontest.Options{State: state})
	d.Await("the policy that was kept cannot be read")
	d.Await("policy: is a directory")
	if log := d.Log.String(); strings.Contains(log, "is none of") {
		t.Errorf("it says\n%s", log)
	}
}

// What lasts is what is in force, whoever asked last and by whatever wire.
func TestPoliciesThatComeAtOnce(t *testing.T) {
	o := daemontest.Options{State: t.TempDir()}
	d := daemontest.Start(t, o)
	var wishes errgroup.Group
	for i := range 60 {
		policy := []string{"saver", "balanced", "performance"}[i%3]
		wishes.Go(func() error {
			a, err := request(t, d.Client(), "PUT", "http://localhost/joulemux/v1/policy", strings.NewReader(`{"policy":"`+policy+`"}`))
			if err == nil && a.status != http.StatusOK {
				err = errors.New(a.body)
			}
			return err
		})
	}
	if err := wishes.Wait(); err != nil {
		t.Error(err)
	}
	kept, err := os.ReadFile(filepath.Join(o.State, "policy"))
	if got := status(t, d).Policy; err != nil || strings.TrimSpace(string(kept)) != got {
		t.Errorf("%q is in force, and %q is kept, %v", got, kept, err)
	}
}
