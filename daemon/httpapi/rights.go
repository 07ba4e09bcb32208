package httpapi

import (
	"slices"
	"strings"

	"github.com/joulemux/joulemux/daemon/token"
)

// rightFor returns what it takes to ask for what is at a path, of those who come
// with a token. What of our own is not named here is the user's own concern, and
// all else a wire on which jobs come.
func rightFor(path string) token.Right {
	ours, isOurs := strings.CutPrefix(path, "/joulemux/v1/")
	switch {
	case path == "/metrics":
		return token.Metrics
	case slices.Contains(anyones, path):
		return token.Anyone
	case administers(path):
		return token.Admin
	case isOurs && !slices.Contains(forJobs, ours) && !strings.HasPrefix(ours, "pipelines/"):
		return token.Control
	default:
		return token.Generate
	}
}

// anyones are the paths that tell that somebody is there.
var anyones = []string{"/", "/health", "/healthz", "/readyz", "/version", "/api/version"}

// forJobs are those of our own paths that are about jobs.
var forJobs = []string{"generate", "chat", "explain", "models", "backends", "status", "pipelines"}

// administers reports whether what is at a path changes what models there are.
func administers(path string) bool {
	return path == "/api/pull" || path == "/joulemux/v1/pull" || slices.ContainsFunc(administration, func(pattern string) bool {
		_, at, _ := strings.Cut(pattern, " ")
		at, below := strings.CutSuffix(at, "{digest}")
		return path == at || below && strings.HasPrefix(path, at)
	})
}
