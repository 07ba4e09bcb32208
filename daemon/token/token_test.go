package token

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func newFile(t *testing.T) *File {
	t.Helper()
	return Open(filepath.Join(t.TempDir(), "joulemux", FileName))
}

func create(t *testing.T, f *File, name string) string {
	t.Helper()
	secret, err := f.Create(Token{Name: name, Rights: []Right{Generate}})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func TestSecretIsFoundAndNothingElseIs(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	secrets := map[string]string{}
	for i := range 20 {
		name := fmt.Sprintf("t%d", i)
		secrets[name] = create(t, f, name)
	}
	for name, secret := range secrets {
		if got, found, err := f.Find(secret); !found || err != nil || got.Name != name {
			t.Errorf("the secret of %s is that of %q: %v", name, got.Name, err)
		}
		for at := range secret { // no part of it will do, nor anything near it
			near := []byte(secret)
			near[at] ^= 1
			for _, wrong := range []string{string(near), secret[:at], secret + secret[at:]} {
				if got, found, _ := f.Find(wrong); found {
					t.Errorf("%q is taken for the secret of %s", wrong, got.Name)
				}
			}
		}
	}
}

func TestSecretIsNowhereInTheFile(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	secret := create(t, f, "phone")
	text, err := os.ReadFile(f.path)
	if err != nil || strings.Contains(string(text), secret) || strings.Contains(string(text), secret[len(Prefix):]) {
		t.Errorf("%v, %s", err, text)
	}
	info, err := os.Stat(f.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if len(secret) != secretLength || !IsOurs(secret) || secret == create(t, f, "other") {
		t.Errorf("the secret is %q", secret)
	}
}

func TestChangesOfOthersAreSeen(t *testing.T) {
	t.Parallel()
	daemon := newFile(t)
	if all, err := daemon.All(); len(all) > 0 || err != nil {
		t.Errorf("without a file there are %v, %v", all, err)
	}
	client := Open(daemon.path)
	for i := range 50 { // within one tick of a file system's clock
		name := fmt.Sprint("t", i)
		secret := create(t, client, name)
		if _, found, err := daemon.Find(secret); !found || err != nil {
			t.Fatalf("a token that was made is not known: %v", err)
		}
		if err := client.Revoke(name); err != nil {
			t.Fatal(err)
		}
		if _, found, err := daemon.Find(secret); found || err != nil {
			t.Fatalf("a token that was revoked is known: %v", err)
		}
	}
}

func TestTokensThatAreMadeAtOnceAreAllThere(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if _, err := Open(f.path).Create(Token{Name: fmt.Sprint("t", i), Rights: []Right{Admin}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := f.All(); len(got) != 20 || err != nil {
		t.Errorf("there are %d, %v", len(got), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(f.path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestNamesAreThereOnce(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	first := create(t, f, "phone")
	if _, err := f.Create(Token{Name: "phone", Rights: []Right{Admin}}); !errors.Is(err, ErrTaken) {
		t.Errorf("got %v", err)
	}
	if got, found, _ := f.Find(first); !found || got.May(Admin) {
		t.Errorf("the first is %v, %+v", found, got)
	}
	if err := f.Revoke("laptop"); !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"", "a b", "a\n", "ä", "../x", strings.Repeat("a", 65)} {
		if _, err := f.Create(Token{Name: name, Rights: []Right{Generate}}); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
}

func TestFileThatOthersMayReadIsRefused(t *testing.T) {
	t.Parallel()
	f := newFile(t)
	secret := create(t, f, "phone")
	for mode, want := range map[os.FileMode]error{0o644: ErrUnsafe, 0o620: ErrUnsafe, 0o600: nil, 0o400: nil} {
		if err := os.Chmod(f.path, mode); err != nil {
			t.Fatal(err)
		}
		if _, found, err := f.Find(secret); !errors.Is(err, want) || found != (want == nil) {
			t.Errorf("with mode %v: %v, %v", mode, found, err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chown(f.path, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Find(secret); !errors.Is(err, ErrUnsafe) {
			t.Errorf("with a file of somebody else: %v", err)
		}
	}
}

func TestFileWithFaultsLetsNobodyIn(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("ab", 32)
	good := `{"name":"a","rights":["generate"],"created":"2026-01-02T03:04:05Z","sha256":"` + hash + `"}` + "\n"
	if all, err := parse([]byte(good + "\n")); len(all) != 1 || err != nil {
		t.Fatalf("got %v, %v", all, err)
	}
	for text, want := range map[string]string{
		"x":                                                 "line 1: ",
		good + good:                                         "line 2: there is a token of that name: a",
		good[:len(good)-1] + good:                           "line 1: want one token",
		strings.Replace(good, "ab", "", 1):                  "line 1: want 64 hexadecimal digits",
		strings.ReplaceAll(good, "ab", "zz"):                "line 1: ",
		strings.ReplaceAll(good, "ab", "00"):                "line 1: it has no hash",
		strings.Replace(good, `"generate"`, "", 1):          "line 1: it has no rights",
		strings.Replace(good, `"generate"`, `"fly"`, 1):     `line 1: "fly" is none of the rights`,
		strings.Replace(good, `"rights"`, `"only_from"`, 1): "line 1: ",
		strings.Replace(good, `"a"`, `"a b"`, 1):            "line 1: the name",
		strings.Repeat("\n", maxFile+1):                     "it is longer than",
	} {
		if all, err := parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, %v, want %q", text, all, err, want)
		}
	}
	f := newFile(t)
	secret := create(t, f, "phone")
	if err := os.WriteFile(f.path, append([]byte(good), "x\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, found, err := f.Find(secret); found || err == nil {
		t.Errorf("got %v, %v", found, err)
	}
	if err := f.Revoke("a"); err == nil {
		t.Error("what cannot be read is written over")
	}
}

// TestAFailureToReadPasses: not in parallel, as it takes from all of the process what
// it needs to open files.
func TestAFailureToReadPasses(t *testing.T) {
	f := newFile(t)
	secret := create(t, f, "phone")
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	_, found, err := f.Find(secret)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if found || !errors.Is(err, syscall.EMFILE) {
		t.Errorf("without file descriptors it is found: %v, %v", found, err)
	}
	if _, found, err := f.Find(secret); !found || err != nil {
		t.Errorf("once there are some it is found: %v, %v", found, err)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		expires time.Time
		want    bool
	}{{time.Time{}, false}, {now.Add(1), false}, {now, true}, {now.Add(-1), true}} {
		if got := (Token{Expires: c.expires}).Expired(now); got != c.want {
			t.Errorf("at %v: %v", c.expires.Sub(now), got)
		}
	}
}

func TestRightsAreApart(t *testing.T) {
	t.Parallel()
	for _, has := range Rights() {
		if tok := (Token{Rights: []Right{has}}); !tok.May(Anyone) {
			t.Errorf("%s may not even look", has)
		} else {
			for _, asked := range Rights() {
				if tok.May(asked) != (asked == has) {
					t.Errorf("%s, asked for %s: %v", has, asked, tok.May(asked))
				}
			}
		}
	}
}

// FuzzParse sees to it that what is read can be written, and is the same then.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"name":"a","rights":["generate","admin"],"created":"2026-01-02T03:04:05Z","expires":"2027-01-02T03:04:05+01:00","sha256":"` + strings.Repeat("ab", 32) + `"}`))
	f.Add([]byte("{}\n\n[]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := parse(text)
		if err != nil {
			return
		}
		again, err := format(all)
		if err != nil {
			t.Fatal(err)
		}
		same, err := parse(again)
		if err != nil || !slices.EqualFunc(all, same, func(a, b Token) bool {
			return a.Name == b.Name && slices.Equal(a.Rights, b.Rights) && a.Hash == b.Hash && a.Expires.Equal(b.Expires)
		}) {
			t.Errorf("%q is read again as %q: %v", all, same, err)
		}
		if _, found := find(all, NewSecret()); found {
			t.Error("a secret that was just made is known")
		}
	})
}
