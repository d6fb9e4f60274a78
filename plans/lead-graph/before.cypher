// Leads, and the agents that they are assigned to. Two agents share some leads, and one assignment was made twice.
CREATE CONSTRAINT lead_id IF NOT EXISTS FOR (l:Lead) REQUIRE l.id IS UNIQUE;

CREATE CONSTRAINT agent_id IF NOT EXISTS FOR (a:Agent) REQUIRE a.id IS UNIQUE;

UNWIND range(1, 20) AS id
CREATE (:Agent {id: id, name: 'agent ' + id});

UNWIND range(1, 3000) AS id
CREATE (:Lead {id: id, email: 'lead' + id + '@example.com', status: CASE id % 3 WHEN 0 THEN 'WON' WHEN 1 THEN 'OPEN' ELSE 'LOST' END,
               created_at: datetime('2025-01-01T00:00:00Z') + duration({minutes: id}), updated_at: datetime('2025-06-01T00:00:00Z')});

MATCH (l:Lead), (a:Agent) WHERE a.id = 1 + l.id % 20 OR (l.id % 100 = 0 AND a.id = 1 + (l.id + 7) % 20)
CREATE (l)-[:ASSIGNED_TO {since: date('2025-01-01'), weight: l.id % 5}]->(a);

MATCH (l:Lead {id: 1}), (a:Agent {id: 2})
CREATE (l)-[:ASSIGNED_TO {since: date('2025-02-01')}]->(a);
