package packaging_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// energyGroup is the one that may learn what counters show.
const energyGroup = "joulemux-energy"

func TestGroupIsMade(t *testing.T) {
	root := t.TempDir()
	if err := errors.Join(os.CopyFS(root+"/usr/lib/sysusers.d", os.DirFS("sysusers")), os.Mkdir(root+"/etc", 0o755)); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "systemd-sysusers", "--root="+root)
	groups, err := os.ReadFile(filepath.Join(root, "etc/group"))
	if err != nil || !regexp.MustCompile(`(?m)^joulemux-energy:x:\d{1,3}:$`).Match(groups) {
		t.Errorf("%v\n%s", err, groups)
	}
	// With no user of that name, which could then be told.
	if users, err := os.ReadFile(filepath.Join(root, "etc/passwd")); err == nil && strings.Contains(string(users), energyGroup) {
		t.Errorf("users\n%s", users)
	}
}

// ruleOf returns what the rule for udev matches and what it runs.
func ruleOf(t *testing.T) (match map[string]string, run []string) {
	t.Helper()
	text, err := os.ReadFile("udev/70-joulemux-energy.rules")
	if err != nil {
		t.Fatal(err)
	}
	match = make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		for part := range strings.SplitSeq(strings.TrimSpace(line), ", ") {
			key := part[:strings.IndexAny(part, "=!+")]
			value, err := strconv.Unquote(part[strings.IndexByte(part, '"'):])
			if err != nil {
				t.Fatalf("%s: %v", part, err)
			}
			if key == "RUN" {
				run = append(run, value)
			} else {
				match[key] = value
			}
		}
	}
	return match, run
}

func TestRuleIsForZonesOfRAPL(t *testing.T) {
	match, _ := ruleOf(t)
	for key, want := range map[string]string{"SUBSYSTEM": "powercap", "TEST": "energy_uj", "ACTION": "remove", "KERNEL": "intel-rapl*:*"} {
		if match[key] != want {
			t.Errorf("%s is %q, want %q", key, match[key], want)
		}
	}
	for _, key := range []string{"MODE", "GROUP", "OWNER"} {
		if _, ok := match[key]; ok {
			t.Errorf("%s= does nothing where there is no node in /dev", key)
		}
	}
	for zone, want := range map[string]bool{
		"intel-rapl": false, "intel-rapl:0": true, "intel-rapl:0:1": true, "intel-rapl-mmio:0": true, "intel-rapl-mmio": false, "dtpm:0": false,
	} {
		if got, err := filepath.Match(match["KERNEL"], zone); got != want || err != nil {
			t.Errorf("%s: %v, %v", zone, got, err)
		}
	}
}

func TestRuleOpensTheCounterToTheGroupAlone(t *testing.T) {
	const devpath, group = "/devices/virtual/powercap/intel-rapl/intel-rapl:0", 65534 // Nobody's, which is there.
	sys := t.TempDir()
	counter := filepath.Join(sys, devpath, "energy_uj")
	if err := os.MkdirAll(filepath.Dir(counter), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(counter, []byte("1\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	_, programs := ruleOf(t)
	for _, program := range programs {
		program = strings.NewReplacer("$sys", sys, "$devpath", devpath, energyGroup, strconv.Itoa(group)).Replace(program)
		args := strings.Fields(program) // As udev splits it.
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	info, err := os.Stat(counter)
	if err != nil {
		t.Fatal(err)
	}
	if is := info.Sys().(*syscall.Stat_t); info.Mode() != 0o440 || is.Gid != group || is.Uid != 0 {
		t.Errorf("it is %v, of user %d and group %d", info.Mode(), is.Uid, is.Gid)
	}
}
