package httpapi_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/door"
	"github.com/joulemux/joulemux/daemon/httpapi"
	"github.com/joulemux/joulemux/daemon/token"
)

func TestATokenIsForWhatItsRightSaysAndNothingElse(t *testing.T) {
	t.Parallel()
	one, _ := two(says(ndjson, lastLine))
	r := newRig(t, one)
	tokens := token.Open(filepath.Join(t.TempDir(), "tokens"))
	r.door.Configure(door.Settings{Tokens: tokens})
	for _, right := range token.Rights() {
		secret, err := tokens.Create(token.Token{Name: string(right), Rights: []token.Right{right}})
		if err != nil {
			t.Fatal(err)
		}
		for pattern, takes := range httpapi.Endpoints() {
			if takes == right || takes == token.Anyone {
				continue
			}
			method, path, _ := strings.Cut(pattern, " ")
			path = strings.NewReplacer("{digest}", "sha256:1", "{id}", "1", "{name}", "x", "{id...}", "m").Replace(path)
			for wire, c := range map[string]*http.Client{"the port": r.overTCP, "the socket": r.overUnix} {
				if got := r.over(c, method, path, `{"model":"m","prompt":"x"}`, "X-Api-Key: "+secret); got.status != http.StatusForbidden {
					t.Errorf("with a token for %s, %s by %s is answered %d %s", right, pattern, wire, got.status, got.body)
				}
			}
		}
	}
	if asked := one.questions(); len(asked) != 0 {
		t.Errorf("the backend was asked %q", asked)
	}
}
