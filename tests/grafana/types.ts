// What a dashboard of Sidekey may be: Grafana's published types, made to fit JSON, and for each type of
// panel that is used its own options. The test writes each dashboard behind `const dashboard: Shown =`.

import type {
    AnnotationQuery,
    Dashboard,
    DataQuery,
    FieldConfig,
    FieldConfigSource,
    Panel,
    RowPanel,
    VariableModel,
} from "@grafana/schema";
import type * as BarGauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as Heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as StateTimeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as Table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as TimeSeries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** The same, with each enum's values in place of its members: JSON has no members. */
type Plain<T> = T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends Array<infer Each>
        ? Array<Plain<Each>>
        : T extends object
          ? { [Name in keyof T]: Plain<T[Name]> }
          : T;

/** What the data source for Prometheus adds to a query; the package has no types of it. */
interface PrometheusQuery extends DataQuery {
    editorMode?: "code" | "builder";
    expr: string;
    format?: "time_series" | "table" | "heatmap";
    instant?: boolean;
    interval?: string;
    legendFormat?: string;
    range?: boolean;
}

/** The same of an annotation. */
interface PrometheusAnnotation extends AnnotationQuery<PrometheusQuery> {
    tagKeys?: string;
    textFormat?: string;
    titleFormat?: string;
    useValueForTime?: boolean;
}

/** Options and the fields' own settings, by the type of the panel. */
interface Kinds {
    bargauge: [BarGauge.Options, object];
    heatmap: [Heatmap.Options, Heatmap.FieldConfig];
    stat: [Stat.Options, object];
    "state-timeline": [StateTimeline.Options, StateTimeline.FieldConfig];
    table: [Table.Options, Table.FieldConfig];
    timeseries: [TimeSeries.Options, TimeSeries.FieldConfig];
}

/** A panel that draws: it says what it shows, and what it asks. */
type Drawn = {
    [Kind in keyof Kinds]: Omit<
        Panel,
        "description" | "fieldConfig" | "id" | "options" | "targets" | "title" | "type"
    > & {
        description: string;
        fieldConfig: Omit<FieldConfigSource, "defaults"> & {
            defaults: Omit<FieldConfig, "custom"> & { custom?: Kinds[Kind][1] };
        };
        id: number;
        options: Kinds[Kind][0];
        targets: PrometheusQuery[];
        title: string;
        type: Kind;
    };
}[keyof Kinds];

type Row = Omit<RowPanel, "panels"> & { panels: Drawn[] };

export type Shown = Plain<
    Omit<Dashboard, "annotations" | "panels" | "templating" | "title" | "uid"> & {
        annotations: { list: Array<AnnotationQuery | PrometheusAnnotation> };
        panels: Array<Drawn | Row>;
        templating: { list: VariableModel[] };
        title: string;
        uid: string;
    }
>;
