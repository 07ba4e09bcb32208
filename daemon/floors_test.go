package daemon_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/joulemux/joulemux"

// floors has every package there may be, from the ground up. A package imports
// only from lines above its own; those of one floor have several where some
// stand on others.
var floors = []struct {
	floor    int
	packages string
}{
	{0, "power daemon/latest daemon/httpapi/wire daemon/grpcapi/computev1"},
	{0, "daemon/job"},
	// Between two HTTP APIs, for the servers of either and for front-ends of both:
	// pure as the vocabulary, and yet about wires, of which that knows nothing.
	{1, "daemon/dialect"},
	{1, "daemon/document"},         // the form of the user's files, for those who know what is in them
	{1, "daemon/backend/endpoint"}, // the connections of either kind of server
	{1, "daemon/backend/events"},   // what either kind answers in the client's own dialect
	// Both ends of the line to a program apart, for power/nvml and power/energyd.
	{1, "power/helper"},
	{1, "daemon/token"}, // on both ends: the client makes them, and the door takes them
	{1, "power/sysfs power/nvml dbus/bus daemon/backend/ollama daemon/backend/openai daemon/peer daemon/door systemd"},
	{1, "power/energyd"},
	{1, "dbus/upower dbus/profiles dbus/login dbus/network"},
	{2, "power/tracker power/meter daemon/route daemon/queue daemon/residency daemon/backend daemon/ledger daemon/quota"},
	{3, "daemon/cache daemon/pull daemon/registry daemon/config"},
	{3, "daemon/plan"}, // joins the rules; dispatch and simulate drive it
	{3, "daemon/dispatch"},
	{3, "daemon/pipeline"}, // its stages are jobs, and dispatch is the only way to run one
	{3, "daemon/metrics"},  // counts what dispatch tells of jobs, in its words
	{4, "daemon/httpapi daemon/grpcapi dbus"},
	{5, "daemon daemon/simulate"},
	// What the programs have in common as such: flags, exit codes, version.
	{6, "cmd/program"},
	{6, "cmd/joulemuxd cmd/joulemux cmd/joulemux-nvml cmd/joulemux-energyd"},
	// Beside the house.
	{7, "packaging packaging/rig power/powertest"},
	{7, "packaging/rig/rigtest"},
	{7, "dbus/dbustest"},
	{7, "daemon/daemontest"},
	{7, "packaging/demo packaging/bench packaging/examples packaging/examples/routes"},
}

// scaffold is what only tests and packaging may use.
var scaffold = []string{"packaging/...", "power/powertest", "dbus/dbustest", "daemon/daemontest"}

// rooms says for each library in which packages it may be imported. Tests may
// import it where they need it.
var rooms = map[string][]string{
	"os/exec":                                {"packaging/...", "cmd/joulemux"},
	"github.com/godbus/dbus/v5":              {"dbus/...", "packaging/..."},
	"github.com/NVIDIA/go-nvml":              {"cmd/joulemux-nvml"}, // cgo: not power/nvml, which the daemon imports
	"github.com/coreos/go-systemd/v22":       {"systemd"},
	"github.com/fsnotify/fsnotify":           {"daemon/config"},
	"go.yaml.in/yaml/v4":                     {"daemon/document"},
	"github.com/prometheus/procfs":           {"daemon/peer"},
	"github.com/ncruces/go-sqlite3":          {"daemon/ledger"},
	"github.com/ollama/ollama/api":           {"daemon/backend/ollama", "daemon/httpapi", "cmd/...", "packaging/...", "daemon/daemontest"},
	"github.com/openai/openai-go/v3":         {}, // in tests, and whoever else calls us
	"github.com/anthropics/anthropic-sdk-go": {}, // in tests
	"github.com/spf13/cobra":                 {"cmd/..."},
	"connectrpc.com":                         {"daemon/grpcapi/...", "packaging/..."},
	"google.golang.org/protobuf":             {"daemon/grpcapi/computev1"},
	"google.golang.org/grpc":                 {"packaging/..."}, // beside tests: as others call us
	"golang.org/x/sync":                      {"daemon", "packaging/..."},
	"golang.org/x/sys":                       {"cmd/joulemux", "daemon", "packaging/bench", "power/helper"},

	"github.com/prometheus/client_golang": {"daemon/metrics"},
	"github.com/prometheus/common":        {"daemon/metrics"}, // its formats, with client_golang
	"github.com/prometheus/client_model":  {},                 // in tests, which read them
}

// house is what the root may hold.
var house = strings.Fields(".ci .gitignore cmd daemon dbus packaging power systemd Makefile go.mod go.sum LICENSE README.md")

// goPackage is what "go list -json" says of a package.
type goPackage struct {
	ImportPath, Dir, Doc                         string
	Standard                                     bool
	GoFiles, CgoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports           []string
}

func TestPackagesImportOnlyFromLowerFloors(t *testing.T) {
	for _, p := range goList(t, "./...") {
		for _, fault := range floorFaults(p) {
			t.Error(fault)
		}
	}
}

func TestFloorsAreEnforced(t *testing.T) {
	tests := []struct {
		name, path, imports string
		want                string // in its fault, "" if it has none
	}{
		{"down is fine", "daemon/dispatch", "daemon/route", ""},
		{"up is not", "power", "daemon/job", "power (floor 0) imports daemon/job (floor 0)"},
		{"nor is a neighbour", "power/sysfs", "systemd", "power/sysfs (floor 1) imports systemd (floor 1)"},
		{"state and rules never import an edge", "daemon/backend", "daemon/backend/ollama", "floor 2 states the interface that it needs"},
		{"an unknown package has no floor", "util", "power", "util is on no floor"},
		{"nor has one that is imported", "daemon", "util", "daemon imports util, which is on no floor"},
		{"the product uses no scaffold", "cmd/joulemux", "packaging/rig", "cmd/joulemux imports packaging/rig, which is for tests"},
		{"scaffold may", "daemon/daemontest", "packaging/rig", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := goPackage{ImportPath: path.Join(module, tt.path), Imports: []string{path.Join(module, tt.imports)}}
			got := strings.Join(floorFaults(p), "\n")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// floorFaults says which imports of p the floors forbid.
func floorFaults(p goPackage) []string {
	name := inModule(p.ImportPath)
	line, ok := lineOf(name)
	if !ok {
		return []string{name + " is on no floor: give it one in the table of daemon/floors_test.go"}
	}
	var faults []string
	for _, imported := range p.Imports {
		dep := inModule(imported)
		if dep == "" {
			continue
		}
		below, ok := lineOf(dep)
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("%s imports %s, which is on no floor", name, dep))
		case isIn(dep, scaffold) && !isIn(name, scaffold):
			faults = append(faults, fmt.Sprintf("%s imports %s, which is for tests", name, dep))
		case floors[line].floor == 2 && floors[below].floor == 1:
			faults = append(faults, fmt.Sprintf("%s imports %s: floor 2 states the interface that it needs instead", name, dep))
		case below >= line:
			faults = append(faults, fmt.Sprintf("%s (floor %d) imports %s (floor %d)", name, floors[line].floor, dep, floors[below].floor))
		}
	}
	return faults
}

// lineOf returns the line of the floors that a package is in.
func lineOf(name string) (int, bool) {
	for i, f := range floors {
		if slices.Contains(strings.Fields(f.packages), name) {
			return i, true
		}
	}
	return 0, false
}

func TestLibrariesKeepToTheirRooms(t *testing.T) {
	for _, p := range goList(t, "./...") {
		for _, fault := range roomFaults(p) {
			t.Error(fault)
		}
	}
}

func TestRoomsAreEnforced(t *testing.T) {
	tests := []struct {
		name string
		p    goPackage
		want string
	}{
		{"in its room", goPackage{ImportPath: module + "/dbus/bus", Imports: []string{"github.com/godbus/dbus/v5/introspect"}}, ""},
		{"outside", goPackage{ImportPath: module + "/daemon", Imports: []string{"github.com/godbus/dbus/v5"}}, "daemon imports github.com/godbus/dbus/v5"},
		{"a test may", goPackage{ImportPath: module + "/daemon", XTestImports: []string{"github.com/godbus/dbus/v5", "os/exec"}}, ""},
		{"only the client runs programs", goPackage{ImportPath: module + "/cmd/joulemuxd", Imports: []string{"os/exec"}}, "cmd/joulemuxd imports os/exec"},
		{"no room", goPackage{ImportPath: module + "/daemon", Imports: []string{"github.com/stretchr/testify"}}, "no room"},
		{"no room, in a test", goPackage{ImportPath: module + "/daemon", TestImports: []string{"github.com/stretchr/testify"}}, "no room"},
		{"a name that begins the same", goPackage{ImportPath: module + "/systemd", Imports: []string{"github.com/coreos/go-systemd/v223"}}, "no room"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(roomFaults(tt.p), "\n")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// roomFaults says which libraries p imports without having the room for them.
func roomFaults(p goPackage) []string {
	var faults []string
	name := inModule(p.ImportPath)
	for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
		library, ok := libraryOf(imported)
		switch {
		case library == "":
		case !ok:
			faults = append(faults, fmt.Sprintf("%s imports %s, which has no room: give it one in the table of daemon/floors_test.go", name, imported))
		case slices.Contains(p.Imports, imported) && !isIn(name, rooms[library]):
			faults = append(faults, fmt.Sprintf("%s imports %s, which is only for %s", name, imported, strings.Join(rooms[library], " ")))
		}
	}
	return faults
}

// libraryOf returns the library that an import path belongs to, and whether it
// has a room. Our own packages and most of the standard library belong to none.
func libraryOf(imported string) (string, bool) {
	for library := range rooms {
		if isIn(imported, []string{library + "/..."}) {
			return library, true
		}
	}
	host, _, _ := strings.Cut(imported, "/")
	if inModule(imported) != "" || !strings.Contains(host, ".") {
		return "", false
	}
	return imported, false
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if p.Doc == "" && len(p.GoFiles)+len(p.CgoFiles) > 0 {
			t.Errorf("%s has no package comment", inModule(p.ImportPath))
		}
	}
}

func TestProgramsNeedNoC(t *testing.T) {
	// With cgo on: without, its files would not be in the list.
	programs := goList(t, "-deps", "./cmd/joulemux", "./cmd/joulemuxd", "./power/nvml")
	for _, p := range programs {
		if !p.Standard && len(p.CgoFiles) > 0 {
			t.Errorf("%s has C in %s", p.ImportPath, strings.Join(p.CgoFiles, " "))
		}
	}
}

// TestTheDaemonIsNoLargerThanItUses: a program that looks methods up by names that it
// computes has all that are exported, of every package. Of ours that was a seventh.
func TestTheDaemonIsNoLargerThanItUses(t *testing.T) {
	for _, p := range goList(t, "-deps", "./cmd/joulemuxd") {
		if p.ImportPath == "text/template" || p.ImportPath == "html/template" {
			t.Errorf("the daemon has %s; its parse will do", p.ImportPath)
		}
	}
}

func TestTestsThatSleepDoSoInABubble(t *testing.T) {
	for _, p := range goList(t, "./...") {
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			file := filepath.Join(p.Dir, name)
			sleeps, bubble := sleepIn(t, file, nil)
			if sleeps && !bubble {
				t.Errorf("%s sleeps, and does not import testing/synctest: wait for what is to happen", file)
			}
		}
	}
}

func TestSleepIsSeen(t *testing.T) {
	tests := []struct {
		name, text     string
		sleeps, bubble bool
	}{
		{"asleep", `package a; import "time"; func f() { time.Sleep(1) }`, true, false},
		{"in a bubble", `package a; import ("testing/synctest"; "time"); func f() { synctest.Wait(); time.Sleep(1) }`, true, true},
		{"handed on", `package a; import "time"; var f = time.Sleep`, true, false},
		{"awake", `package a; import "time"; var f = time.Now // not time.Sleep`, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if sleeps, bubble := sleepIn(t, "a_test.go", tt.text); sleeps != tt.sleeps || bubble != tt.bubble {
				t.Errorf("sleeps %v, bubble %v", sleeps, bubble)
			}
		})
	}
}

// sleepIn says whether a file uses time.Sleep and imports testing/synctest.
func sleepIn(t *testing.T, file string, text any) (sleeps, bubble bool) {
	t.Helper()
	syntax, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range syntax.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		bubble = bubble || imported == "testing/synctest"
	}
	ast.Inspect(syntax, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
			x, ok := s.X.(*ast.Ident)
			sleeps = sleeps || ok && x.Name == "time"
		}
		return true
	})
	return sleeps, bubble
}

func TestRootHoldsTheHouseAndNothingElse(t *testing.T) {
	for _, name := range rootListing(t) {
		if !slices.Contains(house, name) {
			t.Errorf("%s does not belong at the root", name)
		}
	}
}

// rootListing returns what is at the root and part of the project. Where git
// does not say what is, that is everything which is not hidden.
func rootListing(t *testing.T) []string {
	t.Helper()
	var names []string
	git := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard")
	git.Dir = ".."
	if out, err := git.Output(); err == nil {
		for file := range strings.Lines(string(out)) {
			name, _, _ := strings.Cut(strings.TrimSpace(file), "/")
			names = append(names, name)
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// goList asks the go command, at the root, about packages.
func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json"}, args...)...)
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// inModule returns the name of one of our packages, or "" for any other.
func inModule(importPath string) string {
	name, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return name
}

// isIn says whether a path is one of some patterns, where "a/..." stands for a
// and all below.
func isIn(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		root, below := strings.CutSuffix(pattern, "/...")
		return name == root || below && strings.HasPrefix(name, root+"/")
	})
}
