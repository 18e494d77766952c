package httpapi_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestChatwootContract replays the samples of Chatwoot's requests and answers:
// what comes back is the same, byte for byte, but for ids and secrets.
func TestChatwootContract(t *testing.T) {
	t.Parallel()
	used := map[string]bool{
		// Chatwoot's own service answers so to accounts whose plan has no API. There
		// are no plans here.
		"error.403.cloud_plan.json": true,
	}
	file := func(name string) string {
		used[name] = true
		return sample(t, name)
	}
	s := newSite(t, nil)
	s.send(ofSeven, http.MethodGet, sevenHooks, "", "").want(http.StatusOK, `{"payload":{"webhooks":[]}}`)

	made := s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"url":"https://hooks.crm.example/chatwoot","name":"CRM sync"}`)
	made.want(http.StatusOK, faceless(file("create_or_update.response.json")))
	id, _ := made.webhook()
	one := fmt.Sprintf("%s/%d", sevenHooks, id)

	// In the second of the samples only the inbox's name is not ours to know.
	s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"webhook":{"url":"https://n8n.meadow.example/webhook/abc","subscriptions":["message_created"],"inbox_id":12}}`)
	index := strings.Replace(faceless(file("index.response.json")), `"name":"Website chat"`, `"name":null`, 1)
	s.send(ofSeven, http.MethodGet, sevenHooks, "", "").want(http.StatusOK, index)

	s.send(ofSeven, http.MethodPost, sevenHooks, "", file("create.request.json")).
		want(http.StatusUnprocessableEntity, file("error.422.duplicate_url.json"))
	s.send(ofAll, http.MethodPost, "/api/v1/accounts/8/webhooks", "", file("create.request.json")).
		want(http.StatusOK, `{"payload":{"webhook":{"id":41,"name":"CRM sync","url":"https://hooks.crm.example/chatwoot","account_id":8,"subscriptions":["message_created","conversation_created"],"secret":"hidden"}}}`)

	for _, method := range []string{http.MethodPatch, http.MethodPut} {
		s.send(ofSeven, method, one, "", `{"webhook":{"name":"CRM sync"}}`).want(http.StatusOK, faceless(file("create_or_update.response.json")))
		s.send(ofSeven, method, one, "", `{"url":"javascript:alert(1)","subscriptions":["message_deleted"]}`).
			want(http.StatusUnprocessableEntity, file("error.422.validation.json"))
		s.send(ofSeven, method, one, "", `{}`).want(http.StatusUnprocessableEntity, file("error.422.param_missing.json"))
		s.send(ofSeven, method, sevenHooks+"/999", "", `{"name":"x"}`).want(http.StatusNotFound, file("error.404.json"))
	}
	s.send(ofNobody, http.MethodGet, sevenHooks, "", "").want(http.StatusUnauthorized, file("error.401.bad_token.json"))
	s.send(views, http.MethodGet, sevenHooks, "", "").want(http.StatusUnauthorized, file("error.401.not_admin.json"))

	gone := s.send(ofSeven, http.MethodDelete, one, "", "")
	gone.want(http.StatusOK, "")
	if gone.header.Get("Content-Length") != "0" {
		t.Errorf("the answer to DELETE has the header %v", gone.header)
	}
	s.send(ofSeven, http.MethodDelete, one, "", "").want(http.StatusNotFound, file("error.404.json"))

	files, err := os.ReadDir(filepath.Join("testdata", "chatwoot"))
	if err != nil || len(files) != len(used) {
		t.Errorf("%d samples are there, %d are used: %v", len(files), len(used), err)
	}
}
