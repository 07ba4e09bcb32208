package httpapi

import (
	"strings"
	"testing"

	"github.com/joulemux/joulemux/daemon/token"
)

func TestEveryPathTakesItsRight(t *testing.T) {
	t.Parallel()
	written := make(map[string]bool)
	for right, paths := range map[token.Right]string{
		token.Anyone:   "/ /{$} /healthz /health /readyz /version /api/version",
		token.Metrics:  "/metrics",
		token.Admin:    "/api/pull /api/push /api/create /api/copy /api/delete /api/blobs/{digest} /api/blobs/sha256:1 /api/blobs/x/y /joulemux/v1/pull",
		token.Control:  "/joulemux/v1/hold /joulemux/v1/policy /joulemux/v1/cache /joulemux/v1/energy /joulemux/v1/energy/{id} /joulemux/v1/what-is-new /joulemux/v1/models/pull /joulemux/v1/",
		token.Generate: "/api/generate /api/chat /api/embed /api/embeddings /api/tags /api/show /api/ps /v1/chat/completions /v1/completions /v1/embeddings /v1/responses /v1/messages /v1/messages/count_tokens /v1/models /v1/models/{id...} /backends /joulemux/v1/backends /joulemux/v1/generate /joulemux/v1/chat /joulemux/v1/explain /joulemux/v1/models /joulemux/v1/status /joulemux/v1/pipelines /joulemux/v1/pipelines/{name} /joulemux/v1/pipelines/check /joulemux/v1/pipelines/run /metricsx /nothing",
	} {
		for path := range strings.FieldsSeq(paths) {
			written[path] = true
			if got := rightFor(strings.TrimSuffix(path, "{$}")); got != right {
				t.Errorf("%s takes %q, want %q", path, got, right)
			}
		}
	}
	for pattern := range new(Server).endpoints() {
		if _, path, _ := strings.Cut(pattern, " "); !written[path] {
			t.Errorf("nobody has said what %s takes", path)
		}
	}
}
