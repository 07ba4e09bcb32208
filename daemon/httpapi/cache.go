package httpapi

import (
	"net/http"

	"github.com/joulemux/joulemux/daemon/cache"
	"github.com/joulemux/joulemux/daemon/httpapi/wire"
)

// cache tells what answers are kept.
func (s *Server) cache(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, describeCache(s.Cache.Stats()))
}

// clearCache forgets them, and tells what there was.
func (s *Server) clearCache(w http.ResponseWriter, _ *http.Request) {
	had := s.Cache.Stats()
	s.Cache.Clear()
	reply(w, http.StatusOK, describeCache(had))
}

func describeCache(c cache.Stats) wire.Cache {
	return wire.Cache{
		Entries: c.Entries, Bytes: c.Bytes, MaxBytes: c.Limit, Shared: c.Share,
		Hits: c.Hits, Joined: c.Joined, Misses: c.Misses, Evictions: c.Evictions, Expiries: c.Expiries,
	}
}
