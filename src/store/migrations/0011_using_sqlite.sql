CREATE TRIGGER api_keys_never_used AFTER INSERT ON api_keys
BEGIN
    INSERT INTO key_unused (key_id, tenant_id) VALUES (NEW.id, NEW.tenant_id)
        ON CONFLICT (key_id) DO NOTHING;
END;

CREATE TRIGGER key_uses_first AFTER INSERT ON key_uses
BEGIN
    UPDATE key_uses SET tenant_id = (SELECT tenant_id FROM api_keys WHERE id = NEW.key_id)
        WHERE key_id = NEW.key_id AND generation = NEW.generation;
    DELETE FROM key_unused WHERE key_id = NEW.key_id;
END;
