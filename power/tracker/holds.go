package tracker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/joulemux/joulemux/power"
)

// Errors of Hold and Release.
var (
	ErrNoHold       = errors.New("no such hold")
	ErrNotHolder    = errors.New("the hold belongs to somebody else")
	ErrTooManyHolds = errors.New("too many holds")
)

// maxHolds bounds what one careless client in a loop can make us keep. All
// clients of one user share it, since any of them can act for the others.
const maxHolds = 256

// Hold keeps the tier at least as careful as h.Tier until the hold is released
// with the cookie returned, h.Holder is gone, or the user chooses a
// preference. The hold has then vanished from the snapshots.
func (t *Tracker) Hold(ctx context.Context, h power.Hold) (cookie uint32, err error) {
	stopped := t.do(ctx, func(s *state) {
		if len(s.wishes.Holds) >= maxHolds {
			err = fmt.Errorf("%w: there are %d", ErrTooManyHolds, maxHolds)
			return
		}
		s.lastCookie++
		cookie = s.lastCookie
		h.Cookie, h.Since = cookie, time.Now()
		s.wishes.Holds = append(slices.Clone(s.wishes.Holds), h)
		s.settle()
	})
	return cookie, errors.Join(err, stopped)
}

// Release ends the hold with that cookie, which must be holder's own.
func (t *Tracker) Release(ctx context.Context, cookie uint32, holder string) (err error) {
	stopped := t.do(ctx, func(s *state) {
		i := slices.IndexFunc(s.wishes.Holds, func(h power.Hold) bool { return h.Cookie == cookie })
		switch {
		case i < 0:
			err = fmt.Errorf("%w: %d", ErrNoHold, cookie)
		case s.wishes.Holds[i].Holder != holder:
			err = fmt.Errorf("%w: %d", ErrNotHolder, cookie)
		default:
			s.keepHolds(func(h power.Hold) bool { return h.Cookie != cookie })
		}
	})
	return errors.Join(err, stopped)
}

// Gone ends every hold of a holder that has left.
func (t *Tracker) Gone(ctx context.Context, holder string) error {
	return t.do(ctx, func(s *state) {
		s.keepHolds(func(h power.Hold) bool { return h.Holder != holder })
	})
}

// Prefer records what the user has chosen for good. It ends all holds, as in
// power-profiles-daemon: the person before the machine overrules programs.
func (t *Tracker) Prefer(ctx context.Context, p power.Preference) error {
	return t.do(ctx, func(s *state) {
		s.wishes.Preference = p
		s.keepHolds(func(power.Hold) bool { return false })
	})
}

// keepHolds drops the holds that keep refuses.
func (s *state) keepHolds(keep func(power.Hold) bool) {
	var kept []power.Hold
	for _, h := range s.wishes.Holds {
		if keep(h) {
			kept = append(kept, h)
		}
	}
	s.wishes.Holds = kept
	s.settle()
}
