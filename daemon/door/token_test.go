package door

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/joulemux/joulemux/daemon/token"
)

// TestTriesNeverExceedTheirRate is the law of the bound: in any span there are no
// more than the credit and one for each second.
func TestTriesNeverExceedTheirRate(t *testing.T) {
	var all tries
	var taken []time.Time
	now := time.Now()
	for i := range 5000 {
		now = now.Add(time.Duration(i*i%900) * time.Millisecond)
		after := all.take(now)
		if after == 0 {
			taken = append(taken, now)
			continue
		}
		if after > tryCost {
			t.Fatalf("it is told to wait for %v", after)
		}
		if then := (&tries{paid: all.paid}); then.take(now.Add(after)) != 0 {
			t.Fatal("who waits as long as he was told is told to wait again")
		}
	}
	for i, from := range taken {
		for n, at := range taken[i:] {
			if most := tryCredit + int(at.Sub(from)/tryCost) + 1; n+1 > most {
				t.Fatalf("%d in %v", n+1, at.Sub(from))
			}
		}
	}
}

// FuzzPresented sees to it that a secret of ours is found in the midst of
// anything, and that nothing is left of what was shown.
func FuzzPresented(f *testing.F) {
	f.Add("Bearer sk-1", "x", "y")
	f.Add("bearer  ", "", "joulemux_")
	f.Add("Basic QTpC", "Bearer joulemux_x", "\x00")
	f.Fuzz(func(t *testing.T, authorization, key, other string) {
		h := http.Header{"Authorization": {authorization}, "X-Api-Key": {key, other}, "Cookie": {other}, "Accept": {"*/*"}}
		shown := presented(h)
		if !strings.Contains(authorization+" "+key+" "+other, shown) || shown != strings.TrimSpace(shown) {
			t.Errorf("nobody has shown %q", shown)
		}
		ours := token.IsOurs(strings.TrimSpace(bearer(authorization))) || token.IsOurs(strings.TrimSpace(key)) || token.IsOurs(strings.TrimSpace(other))
		if token.IsOurs(shown) != ours {
			t.Errorf("%q is shown, and one of ours is there: %v", shown, ours)
		}
		forget(h)
		if len(h) != 1 || presented(h) != "" {
			t.Errorf("left is %v", h)
		}
	})
}
