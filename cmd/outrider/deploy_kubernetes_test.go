package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// manifest is what an object of kubernetes.yaml has that concerns us. What it
// has not is an error of the test: a name misspelt is not passed over.
type manifest struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   manifestMetadata
	StringData map[string]string `yaml:"stringData"`
	Spec       struct {
		Replicas       int
		BackoffLimit   int `yaml:"backoffLimit"`
		MaxUnavailable int `yaml:"maxUnavailable"`
		Selector       struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		Template struct {
			Metadata manifestMetadata
			Spec     podSpec
		}
	}
}

type manifestMetadata struct {
	Name   string
	Labels map[string]string
}

type podSpec struct {
	RestartPolicy                 string `yaml:"restartPolicy"`
	TerminationGracePeriodSeconds int    `yaml:"terminationGracePeriodSeconds"`
	AutomountServiceAccountToken  *bool  `yaml:"automountServiceAccountToken"`
	EnableServiceLinks            *bool  `yaml:"enableServiceLinks"`
	SecurityContext               struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		RunAsUser      int                   `yaml:"runAsUser"`
		RunAsGroup     int                   `yaml:"runAsGroup"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	TopologySpreadConstraints []map[string]any `yaml:"topologySpreadConstraints"`
	Containers                []struct {
		Name, Image string
		Args        []string
		Env         []struct {
			Name, Value string
			ValueFrom   struct {
				SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
			} `yaml:"valueFrom"`
		}
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		Resources       struct{ Requests map[string]string }
		ReadinessProbe  probe `yaml:"readinessProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		SecurityContext struct {
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []string }
		} `yaml:"securityContext"`
	}
}

type probe struct {
	HTTPGet          struct{ Path, Port string } `yaml:"httpGet"`
	PeriodSeconds    int                         `yaml:"periodSeconds"`
	TimeoutSeconds   int                         `yaml:"timeoutSeconds"`
	FailureThreshold int                         `yaml:"failureThreshold"`
}

// readManifests gives the objects of kubernetes.yaml, by kind and name.
func readManifests(t *testing.T) map[string]manifest {
	t.Helper()
	found := map[string]manifest{}
	decoder := yaml.NewDecoder(strings.NewReader(deployFile(t, "kubernetes.yaml")))
	decoder.KnownFields(true)
	for {
		var m manifest
		err := decoder.Decode(&m)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatalf("kubernetes.yaml: %v", err)
		}
		found[m.Kind+" "+m.Metadata.Name] = m
	}
}

func TestKubernetesPods(t *testing.T) {
	t.Parallel()
	manifests := readManifests(t)
	for object, command := range map[string]string{"Job outrider-migrate": "migrate", "Deployment outrider": "serve", "Deployment outrider-web": "web"} {
		pod := manifests[object].Spec.Template.Spec
		if len(pod.Containers) != 1 {
			t.Fatalf("%s has %d containers", object, len(pod.Containers))
		}
		container := pod.Containers[0]
		if !slices.Equal(container.Args, []string{command}) || parses(container.Args) != nil {
			t.Errorf("%s runs %v, want %s", object, container.Args, command)
		}
		for _, env := range container.Env {
			value := env.Value
			if ref := env.ValueFrom.SecretKeyRef; ref.Name != "" {
				value = manifests["Secret "+ref.Name].StringData[ref.Key]
			}
			checkSetting(t, object, env.Name, value)
		}
		security := container.SecurityContext
		if !pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.RunAsUser == 0 || pod.SecurityContext.SeccompProfile.Type != "RuntimeDefault" ||
			security.AllowPrivilegeEscalation == nil || *security.AllowPrivilegeEscalation || !security.ReadOnlyRootFilesystem || !slices.Equal(security.Capabilities.Drop, []string{"ALL"}) {
			t.Errorf("%s has more rights than it needs: %+v, %+v", object, pod.SecurityContext, security)
		}
		if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken || pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
			t.Errorf("%s is told of the cluster, which it has no use for", object)
		}
	}
	one := func(object string) (image, secret string) {
		container := manifests[object].Spec.Template.Spec.Containers[0]
		return container.Image, container.Env[0].ValueFrom.SecretKeyRef.Name
	}
	image, owner := one("Job outrider-migrate")
	relays, relay := one("Deployment outrider")
	pages, web := one("Deployment outrider-web")
	if image != relays || image != pages || owner == relay || owner == web || relay == web {
		t.Error("the schema, the relay and the pages have different images, or one user")
	}
}

// TestKubernetesPages: the pages are asked where they listen, and their stop is
// waited for.
func TestKubernetesPages(t *testing.T) {
	t.Parallel()
	deployment := readManifests(t)["Deployment outrider-web"].Spec
	pod := deployment.Template.Spec
	container := pod.Containers[0]
	conf := config{}
	for _, env := range container.Env {
		for _, s := range []*setting{webListenOn, publicURL} {
			if s.variable() == env.Name {
				if err := s.set(&conf, env.Value); err != nil {
					t.Error(err)
				}
			}
		}
	}
	c := &check{}
	conf.web.checkPlain(c, false)
	if len(c.problems) > 0 {
		t.Errorf("it refuses to start: %v", c.problems)
	}
	if _, port, err := net.SplitHostPort(conf.web.listen); err != nil || len(container.Ports) != 1 || port != strconv.Itoa(container.Ports[0].ContainerPort) {
		t.Errorf("it listens on %q, its ports are %v: %v", conf.web.listen, container.Ports, err)
	}
	for path, p := range map[string]probe{"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
		if p.HTTPGet.Path != path || p.HTTPGet.Port != container.Ports[0].Name {
			t.Errorf("%s is asked at %s, port %s", path, p.HTTPGet.Path, p.HTTPGet.Port)
		}
	}
	if deployment.Selector.MatchLabels["app"] != deployment.Template.Metadata.Labels["app"] || deployment.Template.Metadata.Labels["app"] == "outrider" {
		t.Errorf("it selects %v, the pods are %v", deployment.Selector.MatchLabels, deployment.Template.Metadata.Labels)
	}
	if wait := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second; wait < 2*usualLimits.grace {
		t.Errorf("a stop is given %s", wait)
	}
}

func TestKubernetesDeployment(t *testing.T) {
	t.Parallel()
	manifests := readManifests(t)
	deployment := manifests["Deployment outrider"].Spec
	pod := deployment.Template.Spec
	checkStop(t, "kubernetes.yaml", time.Duration(pod.TerminationGracePeriodSeconds)*time.Second)
	if deployment.Replicas != 2 || manifests["PodDisruptionBudget outrider"].Spec.MaxUnavailable != 1 {
		t.Errorf("%d replicas, want two, and one of them at least while nodes are drained", deployment.Replicas)
	}
	labels := deployment.Template.Metadata.Labels
	for name, selected := range map[string]map[string]string{
		"Deployment": deployment.Selector.MatchLabels, "PodDisruptionBudget": manifests["PodDisruptionBudget outrider"].Spec.Selector.MatchLabels,
	} {
		if len(selected) != 1 || selected["app"] != labels["app"] {
			t.Errorf("the %s selects %v, the pods are %v", name, selected, labels)
		}
	}

	container := pod.Containers[0]
	var listen string
	for _, env := range container.Env {
		if env.Name == listenOn.variable() {
			listen = env.Value
		}
	}
	if host, port, err := net.SplitHostPort(listen); err != nil || host != "" || len(container.Ports) != 1 || port != "7580" || container.Ports[0].ContainerPort != 7580 {
		t.Errorf("it listens on %q, its ports are %v: %v", listen, container.Ports, err)
	}
	// The end points that are asked are those that the program has.
	handler := (&health{}).handler()
	for path, p := range map[string]probe{"/healthz": container.LivenessProbe, "/readyz": container.ReadinessProbe} {
		if p.HTTPGet.Path != path || p.HTTPGet.Port != container.Ports[0].Name {
			t.Errorf("%s is asked at %s, port %s", path, p.HTTPGet.Path, p.HTTPGet.Port)
		}
		mux, ok := handler.(*http.ServeMux)
		if !ok {
			t.Fatalf("the handler is a %T", handler)
		}
		if _, pattern := mux.Handler(httptest.NewRequestWithContext(t.Context(), http.MethodGet, p.HTTPGet.Path, http.NoBody)); pattern != "GET "+path {
			t.Errorf("the program has no %s", p.HTTPGet.Path)
		}
	}
	// The database's answer is waited for 2 s.
	if container.ReadinessProbe.TimeoutSeconds <= 2 {
		t.Errorf("/readyz is given %d s", container.ReadinessProbe.TimeoutSeconds)
	}
}
