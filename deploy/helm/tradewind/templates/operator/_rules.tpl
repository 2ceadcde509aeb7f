{{/*
What the operator may do in a namespace that it watches: exactly what it asks for, by verb. Server-side apply of
an object that may not be there yet needs create beside patch. What belongs to a ServingCluster ends with it, so
only what can be unwanted before is deleted.
Secrets can be neither listed nor watched nor deleted; they are read by the names that resources give.
*/}}
{{- define "tradewind.rules" -}}
- apiGroups: [tradewind.dev]
  resources: [servingclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [tradewind.dev]
  resources: [modeldeployments]
  verbs: [list, watch, patch]
- apiGroups: [tradewind.dev]
  resources: [modelroutes, tenants]
  verbs: [list, watch]
- apiGroups: [tradewind.dev]
  resources: [servingclusters/status, modeldeployments/status, modelroutes/status, tenants/status]
  verbs: [patch]
- apiGroups: [ray.io]
  resources: [rayservices]
  verbs: [get, list, watch, create, patch]
- apiGroups: [ray.io]
  resources: [rayclusters]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, create, patch]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
