package packaging_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPackagersInstallIntoATree(t *testing.T) {
	tree := t.TempDir()
	run(t, nil, "make", "install", "PREFIX=/usr", "DESTDIR="+tree)
	expectFiles(t, tree+"/usr", contents(t, "lib/systemd/user"))

	text, err := os.ReadFile(tree + "/usr/lib/systemd/user/joulemuxd.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := string(text)
	for _, line := range []string{"ExecStart=/usr/bin/joulemuxd\n", "ExecReload=/usr/bin/joulemuxd --check\n"} {
		if !strings.Contains(unit, line) {
			t.Errorf("the unit has no %q", line)
		}
	}
	if strings.Contains(unit, tree) || strings.Contains(unit, "@BINDIR@") {
		t.Errorf("the unit is not for /usr:\n%s", unit)
	}
}

func TestUsersInstallIntoTheirHome(t *testing.T) {
	home := t.TempDir()
	prefix := home + "/.local"
	env := append(goFolders(t), "HOME="+home, "XDG_RUNTIME_DIR="+t.TempDir())
	run(t, env, "make", "install", "PREFIX=~/.local") // Not every shell replaces this ~.
	expectFiles(t, prefix, contents(t, "share/systemd/user"))

	units, err := filepath.Glob(prefix + "/share/systemd/user/*")
	if err != nil {
		t.Fatal(err)
	}
	verify := append([]string{"systemd-analyze", "--user", "verify"}, units...)
	if out := run(t, append(env, "LC_ALL=C"), verify...); out != "" { // What it warns of is no failure to it.
		t.Errorf("systemd-analyze verify: %s", out)
	}
	run(t, env, prefix+"/bin/joulemuxd", "--check")
	run(t, env, prefix+"/bin/joulemux", "version")
	run(t, env, prefix+"/bin/joulemux-nvml", "--version")

	const disable = "systemctl --user disable --now joulemuxd.service joulemux.socket joulemux-http.socket"
	if out := run(t, env, "make", "uninstall", "PREFIX="+prefix); !strings.Contains(out, disable) {
		t.Errorf("nobody is told how to stop what runs:\n%s", out)
	}
	expectFiles(t, prefix, nil)
}

func TestHelperForEnergyIsAnOptIn(t *testing.T) {
	tree := t.TempDir()
	env := []string{"PREFIX=/usr", "DESTDIR=" + tree}
	run(t, env, "packaging/install", "--with-energyd")
	const units = "lib/systemd/system/joulemux-energyd"
	helper := []string{"lib/sysusers.d/joulemux-energy.conf", "libexec/joulemux-energyd", units + ".service", units + ".socket"}
	all := slices.Sorted(slices.Values(append(helper, contents(t, "lib/systemd/user")...)))
	expectFiles(t, tree+"/usr", all)

	text, err := os.ReadFile(filepath.Join(tree, "usr", units+".service"))
	if err != nil || !strings.Contains(string(text), "ExecStart=/usr/libexec/joulemux-energyd --") || strings.Contains(string(text), "@LIBEXECDIR@") {
		t.Errorf("%v\n%s", err, text)
	}
	run(t, env, "packaging/install", "--remove")
	expectFiles(t, tree+"/usr", nil)
}

func TestHelperForEnergyIsNotInstalledWhereAUserCouldReplaceIt(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "./install", "--with-energyd")
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "PREFIX=~/.local", "DESTDIR=")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "home") {
		t.Errorf("%v, %s", err, out)
	}
	expectFiles(t, home, nil)
}

func TestPrefixWhereNobodyLooksIsToldBeforeItIsInstalledTo(t *testing.T) {
	home := t.TempDir()
	env := append(goFolders(t), "HOME="+home, "XDG_DATA_HOME=", "XDG_DATA_DIRS=")
	const nobody = "no user manager looks for units in "
	out := run(t, env, "make", "install", "PREFIX="+home+"/opt")
	told, units, _ := strings.Cut(out, nobody)
	if !strings.HasPrefix(units, home+"/opt/share/systemd/user\n") || strings.Contains(told, "install: building") {
		t.Errorf("with a prefix of one's own:\n%s", out)
	}
	expectFiles(t, home+"/opt", contents(t, "share/systemd/user"))
	elsewhere := t.TempDir()
	if out := run(t, append(env, "XDG_DATA_DIRS="+elsewhere+"/share"), "make", "install", "PREFIX="+elsewhere); !strings.Contains(out, nobody+elsewhere+"/lib/systemd/user\n") {
		t.Errorf("with a prefix of the machine's own:\n%s", out)
	}
	for what, out := range map[string]string{
		"of a packager":               run(t, env, "make", "install", "PREFIX=/opt/joulemux", "DESTDIR="+t.TempDir()),
		"where the user looks":        run(t, append(env, "XDG_DATA_HOME="+home+"/opt/share"), "make", "install", "PREFIX="+home+"/opt"),
		"where it has always been":    run(t, env, "make", "install", "PREFIX=~/.local/"),
		"when it is not there at all": run(t, env, "make", "uninstall", "PREFIX="+home+"/opt"),
	} {
		if strings.Contains(out, nobody) {
			t.Errorf("with a prefix %s:\n%s", what, out)
		}
	}
}

func TestPrefixThatUnitsCannotHoldIsRefused(t *testing.T) {
	for _, prefix := range []string{"relative", "~other/.local", "/with space", "/with,comma", "/with%percent"} {
		cmd := exec.CommandContext(t.Context(), "./install")
		cmd.Env = append(os.Environ(), "PREFIX="+prefix, "DESTDIR="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "PREFIX") {
			t.Errorf("%s: %v, %s", prefix, err, out)
		}
	}
}

// contents returns what is installed, with the units in their folder.
func contents(t *testing.T, units string) []string {
	t.Helper()
	files := []string{
		"bin/joulemux",
		"bin/joulemux-nvml",
		"bin/joulemuxd",
		"share/bash-completion/completions/joulemux",
		"share/dbus-1/services/io.github.joulemux.Inference1.service",
		"share/dbus-1/services/io.github.joulemux.Router1.service",
		"share/doc/joulemux/LICENSE",
		"share/doc/joulemux/README.md",
		"share/fish/vendor_completions.d/joulemux.fish",
		"share/joulemux/pipelines/ask.yaml",
		"share/joulemux/pipelines/commit-message.yaml",
		"share/joulemux/pipelines/triage.yaml",
		"share/zsh/site-functions/_joulemux",
		units + "/joulemux-http.socket",
		units + "/joulemux-nvml.service",
		units + "/joulemux-nvml.socket",
		units + "/joulemux.socket",
		units + "/joulemuxd.service",
	}
	interfaces, err := filepath.Glob("../dbus/*.xml")
	if err != nil || len(interfaces) == 0 {
		t.Fatalf("%d interfaces, %v", len(interfaces), err)
	}
	for _, xml := range interfaces {
		files = append(files, "share/dbus-1/interfaces/"+filepath.Base(xml))
	}
	slices.Sort(files)
	return files
}

// expectFiles checks which files are in a folder, and that anybody may read
// them, and run those in bin.
func expectFiles(t *testing.T, dir string, want []string) {
	t.Helper()
	var got []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		got = append(got, name)
		mode := fs.FileMode(0o644)
		if strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "libexec/") {
			mode = 0o755
		}
		info, err := e.Info()
		if err == nil && (info.Mode() != mode || info.Size() == 0) {
			t.Errorf("%s has %d bytes and is %v, want %v", name, info.Size(), info.Mode(), mode)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("in %s are\n\t%s\nwant\n\t%s", dir, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// run runs a command at the root of the source tree, with an environment that
// no make around us has set, and returns what it had to say.
func run(t *testing.T, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = ".."
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains([]string{"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PREFIX", "DESTDIR"}, name) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// goFolders says where the go command keeps things, for when HOME is another.
func goFolders(t *testing.T) []string {
	t.Helper()
	var env []string
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		env = append(env, name+"="+strings.TrimSpace(run(t, nil, "go", "env", name)))
	}
	return env
}
