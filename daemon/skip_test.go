package daemon_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNothingIsSkippedUnlessAShortRunIsAskedFor(t *testing.T) {
	for _, p := range goList(t, "./...") {
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			file := filepath.Join(p.Dir, name)
			if skipsUnasked(t, file, nil) {
				t.Errorf("%s skips without testing.Short: fail, and say what is missing", file)
			}
		}
	}
}

func TestSkippingIsSeen(t *testing.T) {
	for text, want := range map[string]bool{
		`if testing.Short() { t.Skip("long") }`:                                        false,
		`if os.Getuid() != 0 { if testing.Short() { t.Skipf("x") }; t.Fatal("root") }`: false,
		`if os.Getuid() != 0 { t.Skip("root") }`:                                       true,
		`if testing.Short() { return }; b.SkipNow()`:                                   true,
	} {
		if got := skipsUnasked(t, "a_test.go", "package a; func f() { "+text+" }"); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// skipsUnasked reports whether a file skips something other than in the body of
// an "if testing.Short()".
func skipsUnasked(t *testing.T, file string, text any) (unasked bool) {
	t.Helper()
	syntax, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			call, ok := n.Cond.(*ast.CallExpr)
			return !ok || !isSelector(call.Fun, "testing", "Short")
		case *ast.CallExpr:
			f, ok := n.Fun.(*ast.SelectorExpr)
			unasked = unasked || ok && strings.HasPrefix(f.Sel.Name, "Skip") && isSelector(f, "", f.Sel.Name)
		}
		return true
	})
	return unasked
}

// isSelector reports whether x is name.member, or whatever.member if name is "".
func isSelector(x ast.Expr, name, member string) bool {
	s, ok := x.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != member {
		return false
	}
	of, ok := s.X.(*ast.Ident)
	return ok && (name == "" || of.Name == name)
}
